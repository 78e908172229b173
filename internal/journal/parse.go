package journal

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"flotilla/internal/unit"
)

// parse reads one entry of the journal's JSON format (journalctl(1), systemd's
// Journal Export Formats): an object whose values are strings; a value that is no
// text is an array of its bytes, a field that occurs more than once an array of
// values, and one that is left out for its size is null. The entry's Unit is the
// one of units that it was found for.
func parse(line []byte, units []string) (unit.LogEntry, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(line, &raw); err != nil {
		return unit.LogEntry{}, fmt.Errorf("an entry is not JSON: %w", err)
	}
	fields := map[string]string{}
	for _, name := range wanted {
		if v, ok := raw[name]; ok {
			fields[name] = value(v)
		}
	}
	us, err := strconv.ParseInt(fields["__REALTIME_TIMESTAMP"], 10, 64)
	if err != nil {
		return unit.LogEntry{}, fmt.Errorf("an entry has no time: %w", err)
	}
	return unit.LogEntry{
		Time:     time.UnixMicro(us),
		Machine:  fields["_HOSTNAME"],
		Unit:     unitOf(fields, units),
		Ident:    firstOf(fields, "SYSLOG_IDENTIFIER", "_COMM"),
		PID:      number(firstOf(fields, "_PID", "SYSLOG_PID"), 0),
		Priority: number(fields["PRIORITY"], 6),
		Message:  fields["MESSAGE"],
		Cursor:   fields["__CURSOR"],
	}, nil
}

// unitFields name the unit that an entry is about: first those in which systemd
// and others speak of a unit, then the unit that the writer belongs to.
var unitFields = []string{
	"UNIT", "USER_UNIT", "COREDUMP_UNIT", "COREDUMP_USER_UNIT", "OBJECT_SYSTEMD_UNIT", "OBJECT_SYSTEMD_USER_UNIT",
	"_SYSTEMD_USER_UNIT", "_SYSTEMD_UNIT",
}

var wanted = append([]string{
	"__REALTIME_TIMESTAMP", "__CURSOR", "_HOSTNAME", "SYSLOG_IDENTIFIER", "_COMM", "_PID", "SYSLOG_PID",
	"PRIORITY", "MESSAGE",
}, unitFields...)

func unitOf(fields map[string]string, units []string) string {
	for _, f := range unitFields {
		if slices.Contains(units, fields[f]) {
			return fields[f]
		}
	}
	return firstOf(fields, unitFields...)
}

func firstOf(fields map[string]string, names ...string) string {
	for _, n := range names {
		if fields[n] != "" {
			return fields[n]
		}
	}
	return ""
}

// number reads what a process may have written as it liked.
func number(s string, otherwise int) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return otherwise
	}
	return n
}

// value returns a field's text: the first of several, "" for null and for what
// the format does not know.
func value(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var octets []uint8AsNumber
	if json.Unmarshal(raw, &octets) == nil {
		out := make([]byte, len(octets))
		for i, o := range octets {
			out[i] = byte(o)
		}
		return string(out)
	}
	var several []json.RawMessage
	if json.Unmarshal(raw, &several) == nil && len(several) > 0 {
		return value(several[0])
	}
	return ""
}

// uint8AsNumber is a byte written as a number. (A slice of plain bytes would be
// read as base64.)
type uint8AsNumber uint8
