// Package tunnel reaches machines by SSH: it runs commands and shells on them, and
// carries connections to the sockets and ports that they see.
//
// Whom to trust and whom to be is decided as ssh(1) decides it, with the same files.
// A server's key must be in the known hosts file; an unknown one is asked about on a
// terminal and refused elsewhere; a changed one is refused always. Keys come from the
// agent and from identity files, and ~/.ssh/config may give a host another name,
// user, port and key, and hosts to go through on the way (ProxyJump). Passwords are never
// asked for, and ProxyCommand is not run.
//
// A unix socket is reached by the channel that OpenSSH has for it, else by running
// "fleetctl fd-forward SOCKET" there, as fleet 1.0 did.
package tunnel
