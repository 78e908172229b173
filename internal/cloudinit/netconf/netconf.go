// Package netconf converts a platform's description of a machine's network into files
// of systemd-networkd.
//
// Each format is read into the same few words (links, addresses, routes), which are
// then written as .netdev and .network files. Same input, same files.
package netconf

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"flotilla/internal/fault"
)

// A File belongs into a directory of systemd-networkd.
type File struct {
	Name    string // "00-eth0.network"
	Content string
}

var formats = map[string]func([]byte) ([]link, []string, error){
	"debian":       debian,
	"digitalocean": digitalOcean,
	"packet":       packet,
	"vmware":       vmware,
}

// Formats are the formats that Convert knows, sorted.
func Formats() []string { return slices.Sorted(maps.Keys(formats)) }

// Convert makes the files for a description in a format. Of a description in the
// format debian, ignored says what has no meaning for systemd-networkd, by line.
func Convert(format string, data []byte) (files []File, ignored []string, err error) {
	read, ok := formats[format]
	if !ok {
		return nil, nil, fault.Hint(fmt.Errorf("unknown format %q of a network description", format), "known are %s", strings.Join(Formats(), ", "))
	}
	links, ignored, err := read(data)
	if err != nil {
		return nil, nil, fmt.Errorf("network description (%s): %w", format, err)
	}
	for _, l := range links {
		if err := l.check(); err != nil {
			return nil, nil, fmt.Errorf("network description (%s): %w", format, err)
		}
		files = append(files, l.files()...)
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(files); i++ {
		if files[i].Name == files[i-1].Name {
			return nil, nil, fmt.Errorf("network description (%s): two interfaces make the same file %s", format, files[i].Name)
		}
	}
	return files, ignored, nil
}

// A link is a network interface.
type link struct {
	name   string // "" if only the MAC is known
	mac    string // to find a physical interface by
	setMAC string // to give to the interface
	mtu    string
	kind   string // "", "bond" or "vlan"
	vlanID int
	bond   []setting // of the kind bond
	master string    // name of the bond that it belongs to
	vlans  []string  // names of those on top
	dhcp   string    // "", "ipv4", "ipv6" or "yes"

	addresses []netip.Prefix
	routes    []route
	dns       []netip.Addr
	search    []string
}

type route struct {
	to  netip.Prefix // a zero prefix is the default route
	via netip.Addr
}

// setting is a line NAME=VALUE.
type setting struct{ name, value string }

// check refuses names that would escape the directory or the line that they stand in.
func (l link) check() error {
	for _, name := range append([]string{l.name, l.master}, l.vlans...) {
		if name != "" && !validName(name) {
			return fmt.Errorf("%q is no name of an interface", shorten(name))
		}
	}
	for _, domain := range l.search {
		if strings.Trim(strings.ToLower(domain), "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
			return fmt.Errorf("%q is no domain to search", shorten(domain))
		}
	}
	for _, mac := range []string{l.mac, l.setMAC} {
		if mac != "" && !validMAC(mac) {
			return fmt.Errorf("%q is no MAC address", shorten(mac))
		}
	}
	if l.name == "" && l.mac == "" {
		return fmt.Errorf("an interface has neither a name nor a MAC address")
	}
	return nil
}

// validName is the kernel's rule: at most 15 bytes, no slash, no blank, not . or ..;
// here letters of ASCII alone, because systemd would read others as patterns.
func validName(s string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:@"
	return len(s) <= 15 && strings.Trim(s, allowed) == "" && s != "." && s != ".." && s != ""
}

// validMAC is six bytes in hexadecimal with colons.
func validMAC(s string) bool {
	parts := strings.Split(s, ":")
	for _, p := range parts {
		if len(p) != 2 || strings.Trim(p, "0123456789abcdefABCDEF") != "" {
			return false
		}
	}
	return len(parts) == 6
}

func shorten(s string) string {
	if len(s) <= 60 {
		return s
	}
	return s[:57] + "..."
}

// fileName sorts devices before what lies on top of them.
func (l link) fileName() string {
	depth := map[string]string{"": "00", "bond": "01", "vlan": "02"}[l.kind]
	if l.name == "" {
		return depth + "-" + strings.ToLower(l.mac)
	}
	return depth + "-" + l.name
}

func (l link) files() []File {
	out := []File{{l.fileName() + ".network", l.network()}}
	if l.kind != "" {
		out = append(out, File{l.fileName() + ".netdev", l.netdev()})
	}
	return out
}

func (l link) netdev() string {
	var w writer
	w.section("NetDev", setting{"Name", l.name}, setting{"Kind", l.kind}, setting{"MACAddress", l.setMAC}, setting{"MTUBytes", l.mtu})
	switch l.kind {
	case "bond":
		w.section("Bond", l.bond...)
	case "vlan":
		w.section("VLAN", setting{"Id", fmt.Sprint(l.vlanID)})
	}
	return w.String()
}

func (l link) network() string {
	var w writer
	w.section("Match", l.match())
	if l.kind == "" {
		w.section("Link", setting{"MACAddress", l.setMAC}, setting{"MTUBytes", l.mtu})
	}
	w.section("Network", l.networkSettings()...)
	for _, a := range l.addresses {
		w.section("Address", setting{"Address", a.String()})
	}
	for _, r := range l.routes {
		to := ""
		if r.to.IsValid() {
			to = r.to.Masked().String()
		}
		w.section("Route", setting{"Destination", to}, setting{"Gateway", r.via.String()})
	}
	return w.String()
}

// match finds the interface: by its MAC if that is known, because the name is udev's
// decision. A bond gives its own MAC to its members, which keep the permanent one.
func (l link) match() setting {
	switch {
	case l.mac == "":
		return setting{"Name", l.name}
	case l.master != "":
		return setting{"PermanentMACAddress", strings.ToLower(l.mac)}
	}
	return setting{"MACAddress", strings.ToLower(l.mac)}
}

func (l link) networkSettings() []setting {
	s := []setting{{"DHCP", l.dhcp}, {"Bond", l.master}}
	for _, v := range l.vlans {
		s = append(s, setting{"VLAN", v})
	}
	for _, a := range l.dns {
		s = append(s, setting{"DNS", a.String()})
	}
	if len(l.search) > 0 {
		s = append(s, setting{"Domains", strings.Join(l.search, " ")})
	}
	return s
}

// writer writes sections; settings without a value are left out, and so are sections
// without settings.
type writer struct{ strings.Builder }

func (w *writer) section(name string, settings ...setting) {
	header := false
	for _, s := range settings {
		if s.value == "" {
			continue
		}
		if !header {
			if w.Len() > 0 {
				w.WriteByte('\n')
			}
			fmt.Fprintf(w, "[%s]\n", name)
			header = true
		}
		fmt.Fprintf(w, "%s=%s\n", s.name, s.value)
	}
}
