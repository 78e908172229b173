// Package machines runs real systemd machines on this machine, to try a cluster on what
// it will run on: each has a systemd as PID 1, a journal, D-Bus, an address of its
// own and, where Docker is installed, a Docker engine.
//
// A lab machine's disk is an overlay over this machine's own root file system, so
// there is nothing to download; what this machine has configured or enabled for
// itself is hidden from it. Its network is one bridge in a network namespace of the
// lab's own: nothing of the lab can be reached from outside, or reaches out.
//
// What a lab consists of is found by name and by looking, not by remembering: the
// processes by the directory they were started on, the mounts by where they are, the
// namespaces and cgroups by their prefix. So Down is complete after a crash at any
// point, and a process that got a dead one's number is never taken for ours.
package machines
