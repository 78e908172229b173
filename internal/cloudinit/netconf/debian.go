package netconf

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// debian reads /etc/network/interfaces as Debian's interfaces(5) describes it. What it
// says about how ifupdown works (scripts, mappings) is ignored and reported.
func debian(data []byte) ([]link, []string, error) {
	r := &debianReader{links: make(map[string]*link)}
	for i, line := range joinLines(string(data)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := r.line(i+1, words); err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	links, err := r.finish()
	return links, r.ignored, err
}

// joinLines puts lines that end with a backslash together with the next one, in the
// place of the first.
func joinLines(text string) []string {
	lines := strings.Split(text, "\n")
	for i := len(lines) - 2; i >= 0; i-- {
		if rest, ok := strings.CutSuffix(strings.TrimSuffix(lines[i], "\r"), `\`); ok {
			lines[i], lines[i+1] = rest+" "+lines[i+1], ""
		}
	}
	return lines
}

type debianReader struct {
	links   map[string]*link
	order   []string
	ignored []string

	// The stanza that is being read; now is nil outside of one and in one that is
	// ignored, and family is "" outside of one.
	now     *link
	family  string
	static  bool
	address map[string]string // address and netmask of the stanza

	slaves map[string][]string // of bonds
	rawOf  map[string]string   // device below a VLAN
}

// link is that of a name, made when it is first mentioned.
func (r *debianReader) link(name string) *link {
	if l := r.links[name]; l != nil {
		return l
	}
	l := &link{name: name}
	r.links[name] = l
	r.order = append(r.order, name)
	return l
}

func (r *debianReader) ignore(line int, words []string) {
	r.ignored = append(r.ignored, fmt.Sprintf("line %d: %s", line, shorten(strings.Join(words, " "))))
}

func (r *debianReader) line(n int, words []string) error {
	switch word := words[0]; {
	case word == "auto" || strings.HasPrefix(word, "allow-"):
		return r.end() // systemd-networkd brings up what it has a file for
	case word == "iface":
		if err := r.end(); err != nil {
			return err
		}
		return r.iface(words)
	case word == "mapping" || word == "source" || word == "source-directory" || word == "no-auto-down" || word == "no-scripts" || word == "template":
		r.ignore(n, words)
		err := r.end()
		r.family = "ignored"
		return err
	case r.now == nil && r.family == "":
		return fmt.Errorf("%q stands in no stanza", shorten(words[0]))
	case r.now == nil:
		return nil
	}
	if len(words) < 2 {
		return fmt.Errorf("%s has no value", shorten(words[0]))
	}
	known, err := r.option(strings.ReplaceAll(words[0], "_", "-"), words[1:])
	if !known {
		r.ignore(n, words)
	}
	return err
}

func (r *debianReader) iface(words []string) error {
	if len(words) != 4 {
		return fmt.Errorf("want: iface NAME inet|inet6 METHOD")
	}
	name, family, method := words[1], words[2], words[3]
	if !validName(name) {
		return fmt.Errorf("%q is no name of an interface", shorten(name))
	}
	if family != "inet" && family != "inet6" {
		return fmt.Errorf("address family %q: want inet or inet6", shorten(family))
	}
	r.family, r.static, r.address = family, false, map[string]string{}
	if method == "loopback" {
		return nil // systemd configures it whatever is said
	}
	r.now = r.link(name)
	switch method {
	case "static":
		r.static = true
	case "manual":
	case "auto": // by router advertisements, as systemd-networkd does anyway
	case "dhcp":
		r.addDHCP(map[string]string{"inet": "ipv4", "inet6": "ipv6"}[family])
	default:
		return fmt.Errorf("method %q: want static, dhcp, manual, auto or loopback", shorten(method))
	}
	return nil
}

func (r *debianReader) addDHCP(family string) {
	if r.now.dhcp != "" && r.now.dhcp != family {
		family = "yes"
	}
	r.now.dhcp = family
}

// end ends a stanza: now its address and netmask are known.
func (r *debianReader) end() error {
	defer func() { r.now, r.family, r.address = nil, "", nil }()
	if r.now == nil || !r.static {
		return nil
	}
	address, mask := r.address["address"], r.address["netmask"]
	if a, bits, ok := strings.Cut(address, "/"); ok {
		address, mask = a, bits
	}
	switch {
	case address == "":
		return fmt.Errorf("the static stanza of %s before this line has no address", r.now.name)
	case mask == "":
		return fmt.Errorf("the static stanza of %s before this line has no netmask", r.now.name)
	}
	p, err := parseNet("address of "+r.now.name, address, mask)
	if err != nil {
		return err
	}
	if p.Addr().Is4() != (r.family == "inet") {
		return fmt.Errorf("address of %s: %s is not of the family %s", r.now.name, p.Addr(), r.family)
	}
	r.now.addresses = append(r.now.addresses, p)
	return nil
}

// option reads one option of a stanza; known is false if it has no meaning here.
func (r *debianReader) option(name string, values []string) (known bool, err error) {
	l := r.now
	switch name {
	case "address", "netmask":
		r.address[name] = values[0]
	case "gateway":
		var via netip.Addr
		via, err = parseAddr(name, values[0])
		l.routes = append(l.routes, route{via: via})
	case "dns-nameservers", "dns-nameserver":
		for _, v := range values {
			a, err := parseAddr(name, v)
			if err != nil {
				return true, err
			}
			l.dns = append(l.dns, a)
		}
	case "dns-search", "dns-domain":
		l.search = append(l.search, values...)
	case "hwaddress":
		if l.setMAC = values[len(values)-1]; !validMAC(l.setMAC) {
			err = fmt.Errorf("hwaddress: %q is no MAC address", shorten(l.setMAC))
		}
	case "mtu":
		if _, err = strconv.ParseUint(values[0], 10, 16); err == nil {
			l.mtu = values[0]
		} else {
			err = fmt.Errorf("mtu %q is no number of bytes", shorten(values[0]))
		}
	case "up", "post-up", "pre-up":
		return r.command(values)
	case "vlan-raw-device":
		r.rawOf = put(r.rawOf, l.name, values[0])
	default:
		if strings.HasPrefix(name, "bond-") {
			return r.bondOption(name, values)
		}
		return false, nil
	}
	return true, err
}

func put[V any](m map[string]V, key string, value V) map[string]V {
	if m == nil {
		m = make(map[string]V)
	}
	m[key] = value
	return m
}

// command reads the commands that add routes.
func (r *debianReader) command(words []string) (known bool, err error) {
	to, mask, via := routeOf(words)
	if via == "" {
		return false, nil
	}
	gateway, err := parseAddr("gateway of a route", via)
	if err != nil {
		return true, err
	}
	if to == "default" {
		r.now.routes = append(r.now.routes, route{via: gateway})
		return true, nil
	}
	if a, bits, ok := strings.Cut(to, "/"); ok {
		to, mask = a, bits
	}
	p, err := parseNet("route", to, mask)
	r.now.routes = append(r.now.routes, route{to: p, via: gateway})
	return true, err
}

// routeOf reads "route add -net TO [netmask MASK] gw VIA", "route add default gw VIA"
// and "ip route add TO via VIA", each also with "dev NAME" and "|| ...". via is "" if
// the command is no such.
func routeOf(words []string) (to, mask, via string) {
	switch {
	case len(words) > 3 && slices.Equal(words[:3], []string{"route", "add", "-net"}),
		len(words) > 3 && slices.Equal(words[:3], []string{"ip", "route", "add"}):
		to, words = words[3], words[4:]
	case len(words) > 3 && slices.Equal(words[:3], []string{"route", "add", "default"}):
		to, words = "default", words[3:]
	default:
		return "", "", ""
	}
	for len(words) >= 2 && words[0] != "||" {
		switch words[0] {
		case "netmask":
			mask = words[1]
		case "gw", "via":
			via = words[1]
		case "dev": // the gateway tells the device
		default:
			return "", "", ""
		}
		words = words[2:]
	}
	return to, mask, via
}

// bondSettings are options of bonds that systemd has by another name, and the unit of
// those that are times.
var bondSettings = map[string]struct{ name, unit string }{
	"bond-mode":             {"Mode", ""},
	"bond-miimon":           {"MIIMonitorSec", "ms"},
	"bond-updelay":          {"UpDelaySec", "ms"},
	"bond-downdelay":        {"DownDelaySec", "ms"},
	"bond-lacp-rate":        {"LACPTransmitRate", ""},
	"bond-xmit-hash-policy": {"TransmitHashPolicy", ""},
}

func (r *debianReader) bondOption(name string, values []string) (known bool, err error) {
	l := r.now
	switch name {
	case "bond-slaves":
		l.kind = "bond"
		if values[0] != "none" { // then the slaves name the bond
			r.slaves = put(r.slaves, l.name, append(r.slaves[l.name], values...))
		}
		return true, nil
	case "bond-master":
		l.master = values[0]
		return true, nil
	}
	s, ok := bondSettings[name]
	if !ok {
		return false, nil
	}
	value, err := bondValue(name, values[0])
	if err != nil {
		return true, err
	}
	l.kind = "bond"
	if !slices.ContainsFunc(l.bond, func(have setting) bool { return have.name == s.name }) {
		l.bond = append(l.bond, setting{s.name, value + s.unit})
	}
	return true, nil
}

// bondValue takes the numbers that the kernel takes for words.
func bondValue(name, value string) (string, error) {
	words := map[string][]string{
		"bond-mode":             bondModes,
		"bond-lacp-rate":        {"slow", "fast"},
		"bond-xmit-hash-policy": {"layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4"},
	}[name]
	n, err := strconv.Atoi(value)
	switch {
	case words == nil && err == nil && n >= 0:
		return value, nil
	case words != nil && err == nil && n >= 0 && n < len(words):
		return words[n], nil
	case words != nil && slices.Contains(words, value):
		return value, nil
	case words == nil:
		return "", fmt.Errorf("%s %q: want a number of milliseconds", name, shorten(value))
	}
	return "", fmt.Errorf("%s %q: want one of %s", name, shorten(value), strings.Join(words, ", "))
}

// finish ties bonds and VLANs to their devices.
func (r *debianReader) finish() ([]link, error) {
	if err := r.end(); err != nil {
		return nil, err
	}
	for _, bond := range slices.Clone(r.order) {
		for _, slave := range r.slaves[bond] {
			r.link(slave).master = bond
		}
	}
	for _, name := range slices.Clone(r.order) {
		if err := r.tieVLAN(r.links[name]); err != nil {
			return nil, err
		}
	}
	var out []link
	for _, name := range r.order {
		out = append(out, *r.links[name])
	}
	return out, nil
}

// tieVLAN makes a VLAN of an interface that is one by its name (eth0.100, vlan100) or
// its option vlan-raw-device.
func (r *debianReader) tieVLAN(l *link) error {
	device, id, dotted := strings.Cut(l.name, ".")
	raw := r.rawOf[l.name]
	switch {
	case raw == "" && !dotted:
		return nil
	case raw == "":
		raw = device
	case !dotted:
		id = strings.TrimPrefix(l.name, "vlan")
	}
	n, err := strconv.Atoi(id)
	if err != nil || n < 1 || n > 4094 {
		return fmt.Errorf("%s: the name of a VLAN ends with its number, 1 to 4094: DEVICE.100 or vlan100", l.name)
	}
	if l.kind != "" {
		return fmt.Errorf("%s is a bond and a VLAN", l.name)
	}
	l.kind, l.vlanID = "vlan", n
	below := r.link(raw)
	below.vlans = append(below.vlans, l.name)
	return nil
}
