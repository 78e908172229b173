// Package examples is unit files to start with; plain/ has those of them that need
// Docker in a form that does not. They are in the program too, for the demonstration.
package examples

import "embed"

// Files are the unit files, by their paths in this directory.
//
//go:embed *.service plain/*.service
var Files embed.FS
