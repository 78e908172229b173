// Package v2 is the meaning of etcd's v2 keys API on top of an etcd v3 key space,
// without any I/O: no clock, no network, no goroutine.
//
// # The view
//
// The v2 file /foo/bar is the v3 key /foo/bar with the plain value; the v2 index
// is the v3 revision. What a v3 key cannot say is kept beside it, in records that
// no v2 path can reach because their keys do not start with a slash:
//
//	.v2/n/foo/bar   the node record of /foo/bar: it is a directory, it expires,
//	                its createdIndex is not its revision, what the write was called
//	.v2/e           the event record: what the write was called, where no node
//	                record is left to say it (create, expire, compareAndDelete, and
//	                the removal of a directory)
//
// A plain set in an existing directory is one put and no record. A file's record
// speaks for the revision that it was written at: when a v3 client writes the
// value alone, the record is stale and counts for nothing, and the write is a
// plain set. A directory's record stands for itself. Directories that only v3
// clients made have no record; they are there as long as keys are below them.
//
// A key that has keys below it is a directory for v2: its value, which only a
// v3 client can have put there, is out of sight until the keys below are gone.
//
// A path that is written has at most [MaxLevels] components and [MaxPath] bytes;
// error 209 says so before anything is looked up.
//
// # How it is driven
//
//  1. [Load] builds the [Tree] from the store's keys at some revision.
//  2. [Tree.Apply] takes over one later revision after the other, each whole, and
//     returns the [Change]s that v2 watchers see.
//  3. [Parse] makes a [Request]; [Tree.Get] answers a read.
//  4. [Tree.Evaluate] turns a write into a [Plan]: what to write, and the guards
//     under which the evaluation still holds. The caller runs it as one transaction.
//     A lost guard means: catch up, evaluate again.
//  5. The answer to a write is the Change at the plan's path when the
//     transaction's own revision is applied. No such Change means that a v3 client
//     has put the key out of sight at the same moment: evaluate again.
//
// The tree depends on nothing but the store's content and its revision: a tree
// that followed from revision 1 and one loaded today are equal.
package v2
