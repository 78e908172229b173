// Package backup makes data directories that a store can be started with again,
// out of a member that runs or of one that has stopped.
//
// Either way a snapshot of the v3 key space is taken first: a running member sends
// its own, with a checksum; of a stopped one the files are copied, and the engine
// replays what of the log had not reached the database yet, on the copy. From the
// snapshot a new data directory is made, for one member of a new cluster with fresh
// ids, so that it can never take part in the old one. Keys, indexes, times to live and
// the history of watches are in it. It starts under any name, with or without
// --force-new-cluster.
//
// A backup is checked by doing what it is for: the engine starts on a copy of it, and
// counts. Only then does the directory get its name: what is there under it is whole.
package backup
