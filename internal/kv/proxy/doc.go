// Package proxy serves the store's API on a machine that is no member.
package proxy
