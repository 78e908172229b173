package v2

import (
	"encoding/json"
	"time"
	"unicode/utf8"
)

// record is what a node record says. All of it may be absent.
type record struct {
	Dir bool `json:"dir,omitempty"`
	// Action is what the write was called that the record was written with; ""
	// in the record of a directory that came into being as somebody's parent.
	Action string `json:"action,omitempty"`
	// Created and Modified are set where they differ from the record's revision.
	Created  uint64     `json:"created,omitempty"`
	Modified uint64     `json:"modified,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
	// Refresh: only the TTL was renewed, which no watcher is told.
	Refresh bool `json:"refresh,omitempty"`
}

// durable reports whether a file needs the record for longer than the write.
func (r record) durable() bool { return r.Expires != nil || r.Created != 0 || r.Refresh }

func (r record) encode() string { return encode(r) }

// decodeRecord reads a node record. One that cannot be read, which nobody of us
// has written, says nothing.
func decodeRecord(s string) record {
	var r record
	if json.Unmarshal([]byte(s), &r) != nil {
		return record{}
	}
	return r
}

// eventRecord is what the event record says about the revision it is written at.
type eventRecord struct {
	Action string `json:"action"`
	Key    string `json:"key,omitempty"`
	// Bytes is the key where it is not UTF-8, which a JSON string cannot hold.
	Bytes []byte `json:"bytes,omitempty"`
}

func (e eventRecord) encode() string {
	if !utf8.ValidString(e.Key) {
		e.Bytes, e.Key = []byte(e.Key), ""
	}
	return encode(e)
}

func decodeEvent(s string) eventRecord {
	var e eventRecord
	if json.Unmarshal([]byte(s), &e) != nil {
		return eventRecord{}
	}
	if e.Bytes != nil {
		e.Key, e.Bytes = string(e.Bytes), nil
	}
	return e
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		// Strings, numbers and times before the year 10000 (see Request.Expires).
		panic("v2: encode record: " + err.Error())
	}
	return string(b)
}
