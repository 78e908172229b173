package config

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/textproto"
	"strings"
)

// A Kind is what user data is, as far as its beginning tells.
type Kind string

// The kinds, in the order in which they are tried.
const (
	Empty       Kind = "empty"        // no bytes, or blanks alone: nothing to do
	Script      Kind = "script"       // begins with #!
	CloudConfig Kind = "cloud-config" // the first line is #cloud-config
	Ignition    Kind = "ignition"     // for another program: nothing is done
	Multipart   Kind = "multipart"    // MIME multipart: see Open
	Unknown     Kind = "unknown"      // Parse says what is wrong with its first line
)

// Header is the first line of a cloud-config document. Blanks may follow it.
const Header = "#cloud-config"

const byteOrderMark = "\ufeff"

// Classify tells what data is. Compressed data is Unknown: see Open.
func Classify(data []byte) Kind {
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	first, _, _ := bytes.Cut(data, []byte("\n"))
	switch {
	case len(data) <= MaxText && len(bytes.TrimSpace(data)) == 0:
		return Empty
	case bytes.HasPrefix(data, []byte("#!")):
		return Script
	case string(bytes.TrimRight(first, " \t\r")) == Header:
		return CloudConfig
	case isIgnition(data):
		return Ignition
	}
	if _, ok := multipartHeader(data); ok {
		return Multipart
	}
	return Unknown
}

// isIgnition looks for the version of an Ignition document: of 1.0, or later.
func isIgnition(data []byte) bool {
	if data = bytes.TrimSpace(data); len(data) == 0 || data[0] != '{' || len(data) > MaxUnpacked {
		return false
	}
	var doc struct {
		Old json.RawMessage `json:"ignitionVersion"`
		New struct {
			Version json.RawMessage `json:"version"`
		} `json:"ignition"`
	}
	return json.Unmarshal(data, &doc) == nil && (doc.Old != nil || doc.New.Version != nil)
}

// maxHeader is how far a MIME header is read.
const maxHeader = 64 << 10

// multipartHeader reads the MIME header that data begins with, and reports whether
// it announces several parts. Mail programs put a line "From ..." before it.
func multipartHeader(data []byte) (textproto.MIMEHeader, bool) {
	data = data[:min(len(data), maxHeader)]
	if bytes.HasPrefix(data, []byte("From ")) {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	if name, _, ok := bytes.Cut(first, []byte(":")); !ok || bytes.ContainsAny(name, " \t#{") {
		return nil, false
	}
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(data))).ReadMIMEHeader()
	if err != nil && len(h) == 0 {
		return nil, false
	}
	return h, strings.Contains(strings.ToLower(h.Get("Content-Type")), "multipart/")
}
