// Command flotilla is every program of the project in one binary: a link name or
// the first argument picks one.
package main

import "flotilla/cmd/flotilla/programs"

// Two of the programs have been run by now if they are called for: see package early.
func main() { programs.All.Exec() }
