// Package fleet is a client of the fleet HTTP API, version 1.
//
//	c, err := fleet.New(fleet.Config{Endpoint: "unix:///run/fleet.sock"})
//	...
//	created, err := c.Put(ctx, api.Unit{Name: "hello.service", DesiredState: "launched", Options: options})
//	for change, err := range c.Watch(ctx) {
//		...
//	}
//
// It speaks to the original fleet 1.0 server as well. That one has machines, units
// and states; everything else here fails there with ErrNotExist.
//
// Every request ends within Config.RequestTimeout, except the streams (Watch,
// Journal, Status, Logs, Events), which end when their context does. Every error is
// an *Error.
package fleet
