// Package gate stands in front of both doors of a member, the v2 API and the v3
// gRPC API, and lets in whom the users and roles of package auth allow.
//
// # State
//
// A gate follows the records of users and roles with one watch and decides on what
// it has in memory. Until it has read them once it lets nobody in. Changes are
// decided on a fresh read that a quorum confirms, written as one transaction guarded by
// the state's version, and answered when this gate has taken them over; other
// members follow within the time that a watch takes.
//
// # Rights that are lost
//
// A watch of the v2 API ends when its right to watch does. So does a stream of the
// v3 API, with a code at which clients connect again and go on with what they may
// still see. The original let a watch go on. What is delivered before this
// member has heard of the change is delivered.
//
// # While authentication is off
//
// Everybody may do everything then, but nobody is shown the values of the records of
// users and roles through v3: they hold the hashes of passwords. A snapshot, which is
// the whole store, has them.
//
// # The engine's own authentication
//
// Either it is on, or ours, and each refuses to be turned on beside the other.
// While the engine's is on, the v3 API is left to it, and the v2 API, which has no
// user to show there, is closed.
package gate
