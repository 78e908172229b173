package config

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"flotilla/internal/fault"
	"flotilla/internal/unitfile"
)

// check looks at a scalar of the right type, and reports whether it may be used.
func (r *reader) check(e Entry, path, name, text string, n *node) bool {
	r.variables(n, path, e.Name == "content")
	if text == "" || e.Name == "content" {
		return true
	}
	if strings.ContainsRune(text, utf8.RuneError) {
		return false // r.cleaned has said so
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		f := r.add(n, Error, path, "the value of %q must be one line without control characters", name)
		if strings.HasPrefix(text, "-----BEGIN") {
			f.Message += "; a private key does not belong here"
		}
		return false
	}
	example := sample(text)
	if e.values != nil && !slices.Contains(e.values, example) {
		f := r.add(n, Error, path, "invalid value %s for %q; allowed: %s", show(text), name, strings.Join(e.values, ", "))
		if near := meant(example, e.values); near != "" {
			f.Hint = name + ": " + near
		}
		return false
	}
	if e.Name == "discovery" && !isURL(example) {
		r.add(n, Warning, path, "discovery URL is not valid: %s has no http:// or https:// and host", show(text))
	}
	if e.check == nil {
		return true
	}
	msg := e.check(example)
	switch {
	case msg == "":
	case e.Name == "passwd": // a password may stand there: it is not shown
		r.add(n, Error, path, "invalid value for %q: %s", name, msg)
	default:
		r.add(n, Error, path, "invalid value %s for %q: %s", show(text), name, msg)
	}
	return msg == ""
}

// meant is which of the allowed values an other one stands for; "" if none is near.
func meant(text string, allowed []string) string {
	switch near := fault.Nearest(text, allowed); {
	case len(allowed) == 1:
		return allowed[0]
	case text == "false" && slices.Contains(allowed, "off"):
		return `"off"` // what a program wrote that read off as a boolean
	case len(text) > 2:
		return near
	}
	return ""
}

// show is a value in a message: in quotes only if that is needed to see it, and not
// all of it if it is long.
func show(s string) string {
	if rs := []rune(s); len(rs) > 60 {
		s = string(rs[:50]) + "..."
	}
	if s == "" || strings.ContainsAny(s, "\"; ") || strconv.Quote(s) != `"`+s+`"` {
		return strconv.Quote(s)
	}
	return s
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

func checkURL(s string) string {
	if !isURL(s) {
		return "it is no http:// or https:// URL"
	}
	return ""
}

// checkHostname goes by RFC 1123 and the 64 bytes of hostname(7).
func checkHostname(s string) string {
	if len(s) > 64 {
		return "it is longer than 64 bytes"
	}
	for _, label := range strings.Split(s, ".") {
		switch {
		case label == "":
			return "it has an empty part: a dot at its beginning or end, or two in a row"
		case len(label) > 63:
			return "a part of it is longer than 63 bytes"
		case strings.Trim(label, "-") != label || hasOther(label, "-"):
			return "its parts must be letters, digits and hyphens, not at their ends"
		}
	}
	return ""
}

// hasOther reports whether s has characters other than ASCII letters, digits and
// those of more.
func hasOther(s, more string) bool {
	return strings.ContainsFunc(s, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune(more, c))
	})
}

// networkTypes are the suffixes of files that systemd-networkd and udev read.
var networkTypes = []string{".network", ".netdev", ".link"}

// unitSuffixes are those that a document can do something with.
var unitSuffixes = append([]string{".service", ".socket", ".timer", ".path", ".mount", ".automount", ".swap",
	".target", ".slice", ".scope", ".device"}, networkTypes...)

// IsNetworkUnit reports whether a unit of that name is a file of systemd-networkd:
// it is written elsewhere, and cannot be started or enabled.
func IsNetworkUnit(name string) bool { return slices.Contains(networkTypes, path.Ext(name)) }

func checkUnitName(name string) string {
	switch {
	case strings.Contains(name, "/"):
		return "a unit name has no slash"
	case strings.HasPrefix(name, "."):
		return "a unit name does not begin with a dot"
	}
	if !slices.Contains(unitSuffixes, path.Ext(name)) {
		return "it must end in one of " + strings.Join(unitSuffixes, ", ")
	}
	if IsNetworkUnit(name) {
		// The same shape, another directory.
		name = strings.TrimSuffix(name, path.Ext(name)) + ".service"
	}
	if err := unitfile.CheckName(name); err != nil {
		return err.Error()
	}
	return ""
}

func checkDropInName(name string) string {
	if strings.Contains(name, "/") {
		return "the name of a drop-in has no slash"
	}
	if err := unitfile.CheckDropInName(name); err != nil {
		_, msg, _ := strings.Cut(err.Error(), ": ")
		return msg
	}
	return ""
}

var userName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,30}[A-Za-z0-9_.$-]?$`)

// checkUserName goes by what useradd(8) takes, upper case and dots included.
func checkUserName(s string) string {
	if !userName.MatchString(s) {
		return "a name has up to 32 letters, digits and _.-, and begins with a letter or _"
	}
	return ""
}

func checkGroup(s string) string {
	if _, err := strconv.ParseUint(s, 10, 32); err == nil {
		return ""
	}
	return checkUserName(s)
}

// checkOwner takes what chown(1) takes: user, user:group, user: and :group, by name
// or number.
func checkOwner(s string) string {
	user, group, _ := strings.Cut(s, ":")
	for _, name := range []string{user, group} {
		if msg := checkGroup(name); name != "" && msg != "" {
			return "it must be user or user:group: " + msg
		}
	}
	if user == "" && group == "" {
		return "it must be user or user:group"
	}
	return ""
}

func checkGecos(s string) string {
	if strings.Contains(s, ":") {
		return "a colon ends the field in /etc/passwd"
	}
	return ""
}

// hashes are the forms of crypt(5), and of locked accounts.
var hashes = []*regexp.Regexp{
	regexp.MustCompile(`^\$1\$[^$:]{1,8}\$[./0-9A-Za-z]{22}$`),
	regexp.MustCompile(`^\$2[abxy]\$[0-9]{2}\$[./0-9A-Za-z]{53}$`),
	regexp.MustCompile(`^\$5\$(rounds=[0-9]+\$)?[^$:]{1,16}\$[./0-9A-Za-z]{43}$`),
	regexp.MustCompile(`^\$6\$(rounds=[0-9]+\$)?[^$:]{1,16}\$[./0-9A-Za-z]{86}$`),
	regexp.MustCompile(`^\$g?y\$[./0-9A-Za-z]+\$[./0-9A-Za-z]*\$[./0-9A-Za-z]{43}$`),
	regexp.MustCompile(`^\$7\$[./0-9A-Za-z]{11,97}\$[./0-9A-Za-z]{43}$`),
}

// checkHash must not repeat what it is given: it may be a password.
func checkHash(s string) string {
	s = strings.TrimLeft(s, "!") // a locked account keeps its hash after it
	if s == "" || s == "*" {
		return ""
	}
	for _, form := range hashes {
		if form.MatchString(s) {
			return ""
		}
	}
	if strings.HasPrefix(s, "$") && strings.Count(s, "$") >= 3 {
		return "it is no hash of crypt(5): its method is not known, or something was cut off"
	}
	return "it is no hash of crypt(5), such as `openssl passwd -6` makes; a password itself does not belong here"
}

// checkKey takes a line of authorized_keys: options, type, data, comment.
func checkKey(s string) string {
	words := strings.Fields(s)
	at := slices.IndexFunc(words, isKeyType)
	switch {
	case at < 0:
		return "it is no line of authorized_keys: no type of key, such as ssh-ed25519"
	case at+1 == len(words):
		return "the key is missing after " + words[at]
	}
	data, err := base64.StdEncoding.DecodeString(words[at+1])
	if err != nil {
		return fmt.Sprintf("the key after %s is not base64: %v", words[at], err)
	}
	return checkKeyData(words[at], data)
}

func isKeyType(word string) bool {
	for _, prefix := range []string{"ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"} {
		if strings.HasPrefix(word, prefix) && !hasOther(word, "-@.") {
			return true
		}
	}
	return false
}

// checkKeyData goes through the fields of a public key (RFC 4253, section 6.6),
// whose first is its type.
func checkKeyData(keyType string, data []byte) string {
	for i := 0; len(data) > 0; i++ {
		if len(data) < 4 || uint64(len(data)-4) < uint64(binary.BigEndian.Uint32(data)) {
			return "the key was cut off"
		}
		n := 4 + int(binary.BigEndian.Uint32(data))
		if i == 0 && string(data[4:n]) != keyType {
			return fmt.Sprintf("the key after %s is not of that type", keyType)
		}
		if data = data[n:]; i > 0 && len(data) == 0 {
			return ""
		}
		if strings.Contains(keyType, "-cert-") {
			return "" // its fields are of many kinds
		}
	}
	return "the key was cut off"
}

func checkAbsolute(s string) string {
	if !path.IsAbs(s) {
		return "it is not an absolute path"
	}
	if slices.Contains(strings.Split(s, "/"), "..") {
		return "it leads through .."
	}
	return ""
}

// checkPath takes where a file may be written.
func checkPath(s string) string {
	if msg := checkAbsolute(s); msg != "" {
		return msg
	}
	clean := path.Clean(s)
	switch {
	case clean == "/usr" || strings.HasPrefix(clean, "/usr/"):
		return "file cannot be written to a read-only filesystem"
	case strings.HasPrefix(clean, "/proc/") || strings.HasPrefix(clean, "/sys/"):
		return "it is the kernel's, and gone after a reboot: have a unit write to it, or a file in /etc/sysctl.d or /etc/tmpfiles.d"
	case clean == "/" || strings.HasSuffix(s, "/") || strings.HasSuffix(s, "/."):
		return "it is a directory"
	}
	return ""
}

var (
	permissions = regexp.MustCompile(`^0?[0-7]{3,4}$`)
	// decimals are modes as programs write them that took them for numbers.
	decimals = inDecimal(0o400, 0o440, 0o444, 0o500, 0o550, 0o555, 0o600, 0o640, 0o644, 0o660, 0o664, 0o666,
		0o700, 0o750, 0o755, 0o770, 0o775, 0o777, 0o1777, 0o4755)
)

func inDecimal(modes ...int) map[string]string {
	m := map[string]string{}
	for _, mode := range modes {
		m[strconv.Itoa(mode)] = fmt.Sprintf("%04o", mode)
	}
	return m
}

func checkPermissions(s string) string {
	if permissions.MatchString(s) {
		return ""
	}
	msg := "it must be three or four octal digits, such as 0644"
	if octal, ok := decimals[s]; ok {
		msg += "; it is what a program makes of " + octal + ", which must stand in quotes there"
	}
	return msg
}

var windowStart = regexp.MustCompile(`^(?i:(sun|mon|tue|wed|thu|fri|sat) )?([0-9]|[01][0-9]|2[0-3]):[0-5]?[0-9]$`)

func checkWindowStart(s string) string {
	if !windowStart.MatchString(s) {
		return "it must be H:M, after a day and a blank for once a week: 14:30, Thu 23:00; days are Sun, Mon, Tue, Wed, Thu, Fri, Sat"
	}
	return ""
}

// checkWindowLength asks the parser that the daemon uses.
func checkWindowLength(s string) string {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return "it must be numbers with units h, m and s, such as 1h30m; a day is 24h"
	case d <= 0:
		return "it must be longer than nothing"
	case d > 7*24*time.Hour:
		return "a window is no longer than a week"
	}
	return ""
}

// checkMetadata takes key=value, separated by commas.
func checkMetadata(s string) string {
	for _, p := range strings.Split(s, ",") {
		if _, _, ok := unitfile.CutMetadata(strings.TrimSpace(p)); !ok {
			return strconv.Quote(p) + " is not key=value; several are separated by commas"
		}
	}
	return ""
}
