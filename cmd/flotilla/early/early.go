// Package early runs fleetctl, which is typed all day and asked by every TAB,
// before the daemons that the same binary holds have been initialised.
//
// A Go program initialises every package it links before main.main: here that is
// 6 ms and 600 page faults for the packages of the store, gRPC and their metrics,
// of which fleetctl uses none. The toolchain fixes the order (Go 1.21): packages
// sorted by import path, each as soon as those it imports are ready. This package
// imports little and its path sorts before theirs, so that its init comes before
// nearly all of them; it runs the program there and ends the process. Such a
// program needs nothing but what it imports, which is ready by then. It must link
// nothing heavy, which a test holds.
//
// Package agent below does the same for fleetd: without the store's packages its
// resident memory is 3 MB smaller.
package early

import (
	"flotilla/internal/applet"
	"flotilla/internal/fleet/fleetctl"
)

// Programs are those that are run early. The table of all programs has them too.
var Programs = applet.Table{fleetctl.Applet()}

func init() { Programs.ExecNamed() }
