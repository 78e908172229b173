// Package auth is the v2 API's authentication, decided and not done: users, roles,
// patterns and the switch, without any I/O, clock or chance.
//
// # Who
//
// A request is made by a user, who has sent name and password or has shown a
// certificate whose common name is a user's, or by nobody: a guest. Credentials
// that are sent and wrong are refused; they never make a guest.
//
// # What
//
// A user has roles, a role has patterns of keys to read and to write. A pattern is
// a key, or with a star at its end all that begins with what is before the star.
// The role root may do everything, the role guest is what guests may do. Patterns are
// compared with the clean key, whether the URL ends in a slash or not:
//
//	request                     needs a pattern
//	read /a                     /a or one with a star that covers /a
//	read /a, a directory        the same, or one with a star that covers /a/
//	read /a recursively, watch  one with a star that covers /a; /a/ for the directory
//	write /a                    /a or one with a star that covers /a
//	POST below /a               the same, or one with a star that covers /a/
//	delete /a recursively       one with a star that covers /a
//	put a TTL on directory /a   the same: all in it ends with it
//
// Who may list a directory by its exact key sees its children's values, one level
// of them, and the answer to a write tells the value that was there before: so it
// always was.
//
// # The other door
//
// The v2 key /a/b is the v3 key /a/b, so the same patterns answer for ranges of v3
// keys: see [State.MayRange]. What does not begin with a slash, the records of this
// package among it, is the role root's alone.
//
// # Records
//
// The state is kept in keys that no v2 path reaches, since they do not start with
// a slash: see [Load]. Every change writes the key [RevisionKey] and is guarded by
// it, so that changes come one after the other.
package auth
