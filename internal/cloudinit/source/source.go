// Package source is where a machine's configuration document comes from: a file, a
// URL, a drive that the hypervisor attaches, or a cloud vendor's metadata service.
//
// Flags says which sources a command was given; First waits until one of them can be
// read and returns it. A source is read alone: nothing is merged between sources.
//
// Whatever a source is, it is read with bounds on time and size: a document comes from
// outside and is read before anybody can log in to end a hanging program.
package source

import (
	"context"
	"errors"
)

// MaxSize is how many bytes a document, a part of a vendor's metadata or a file of a
// drive may have, as it is sent. Vendors allow 16 KiB to 64 KiB.
const MaxSize = 16 << 20

// Metadata is what the platform knows about a machine. Every field may be zero: the
// source does not say.
type Metadata struct {
	Hostname string
	// SSHKeys are the public keys that the platform was given for this machine, by
	// names that are unique but mean nothing.
	SSHKeys map[string]string

	// Addresses, without a prefix length; of several the first.
	PublicIPv4, PrivateIPv4, PublicIPv6, PrivateIPv6 string

	// NetworkConfig is the platform's description of the network, in the format that
	// the package netconf converts for this platform.
	NetworkConfig []byte
}

// A Source of user data and metadata. Its methods may be called concurrently.
type Source interface {
	// Name is the place that is read: a path, a URL or a device.
	Name() string
	// Type is the kind of source, as coreos-cloudinit named it: "local-file".
	Type() string
	// Available returns nil when the source can be read, else why it can not be read
	// now. If it will not be available later either, the error is ErrNever.
	Available(ctx context.Context) error
	// UserData is the document, not yet looked at. A source that works and has none
	// returns no bytes and no error.
	UserData(ctx context.Context) ([]byte, error)
	// Metadata is zero for sources that have none.
	Metadata(ctx context.Context) (Metadata, error)
}

// ErrNever is in the chain of an error of Available when there is no use in asking
// again.
var ErrNever = errors.New("not on this machine")

// never marks an error as ErrNever without changing its text.
type never struct{ error }

func (n never) Unwrap() error        { return n.error }
func (n never) Is(target error) bool { return target == ErrNever }
