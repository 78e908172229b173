// Package early runs the command lines that are typed all day, and asked by every
// TAB, before the daemons that the same binary holds have been initialised.
//
// A Go program initialises every package it links before main.main: here that is
// 6 ms and 600 page faults for the packages of the store, gRPC and their metrics,
// of which fleetctl uses none. The order is fixed by the language's toolchain
// since Go 1.21: packages sorted by import path, each as soon as those it imports
// are ready. This package imports little and its path sorts before theirs, so that
// its init comes before nearly all of them; it runs the program there and ends the
// process. A program that is run like that must not need anything but what it
// imports, which the language guarantees, and must link nothing heavy, which a
// test holds.
package early

import (
	"os"

	"flotilla/internal/applet"
	"flotilla/internal/fleet/fleetctl"
)

// Programs are those that are run early. The table of all programs has them too.
var Programs = applet.Table{fleetctl.Applet()}

func init() {
	if !Programs.Names(os.Args) {
		return
	}
	// The goroutine that runs the inits is tied to its thread, which makes every
	// switch to it dear: the program gets one of its own, and ends the process.
	go Programs.Exec()
	select {}
}
