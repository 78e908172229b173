package cloudinitcmd

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"flotilla/internal/cloudinit/config"
	"flotilla/internal/cloudinit/plan"
	"flotilla/internal/cloudinit/source"
)

// addresses are the values of $private_ipv4 and its like.
type addresses struct {
	values   config.Vars
	detected map[string]bool // by name in the environment: nobody gave it, it is this machine's own
}

// addresses finds values: what the source gives, else the environment, else, for one
// that a part uses, an address of this machine. What an earlier run has detected and
// put into /etc/environment is no value of the environment.
func (p *program) addresses(meta source.Metadata, parts []config.Part, record plan.Record) addresses {
	a := addresses{config.Vars{}, map[string]bool{}}
	given := map[string]string{
		"private_ipv4": meta.PrivateIPv4, "public_ipv4": meta.PublicIPv4,
		"private_ipv6": meta.PrivateIPv6, "public_ipv6": meta.PublicIPv6,
	}
	for _, name := range config.Variables() {
		value := given[name]
		if env := p.env.Getenv(variable(name)); value == "" && env != "" && env != record.Detected[variable(name)] {
			value = env
		}
		if value != "" {
			a.values[name] = value
			continue
		}
		_, before := record.Detected[variable(name)]
		if p.root != "/" || !before && !uses(parts, name) {
			continue
		}
		if addr, iface := ownAddress(name); addr.IsValid() {
			a.values[name], a.detected[variable(name)] = addr.String(), true
			p.say("$%s: no source gives it; %s is the address of %s", name, addr, iface)
		}
	}
	return a
}

func uses(parts []config.Part, name string) bool {
	for _, part := range parts {
		if strings.Contains(part.Text, "$"+name) {
			return true
		}
	}
	return false
}

// ownAddress finds an address of this machine for a variable: on the interface that
// leads to everywhere, else on any that is up.
func ownAddress(name string) (netip.Addr, string) {
	kind, family, _ := strings.Cut(name, "_")
	probe := map[string]string{"ipv4": "192.0.2.1:9", "ipv6": "[2001:db8::1]:9"}[family]
	var route netip.Addr
	// Nothing is sent: to connect a datagram socket only asks for the route.
	if conn, err := net.Dial("udp", probe); err == nil {
		route = conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		conn.Close()
	}
	ifaces, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, ""
	}
	var all []ifaceAddr
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				addr, _ := netip.AddrFromSlice(n.IP)
				all = append(all, ifaceAddr{i.Name, addr.Unmap()})
			}
		}
	}
	return choose(kind == "public", family == "ipv4", route, all)
}

// ifaceAddr is an address of an interface.
type ifaceAddr struct {
	iface string
	addr  netip.Addr
}

// choose picks the address for a variable. Addresses of the interface that has the
// default route come first. A machine without a public address is known to others by
// its private one; a private variable never becomes a public address, since what is
// meant for the inside would be open to everybody.
func choose(public, ipv4 bool, route netip.Addr, all []ifaceAddr) (netip.Addr, string) {
	main := ""
	for _, a := range all {
		if a.addr == route {
			main = a.iface
		}
	}
	var best ifaceAddr
	bestRank := 0
	for _, a := range all {
		if !a.addr.IsGlobalUnicast() || a.addr.Is4() != ipv4 || !public && !a.addr.IsPrivate() {
			continue
		}
		rank := 1
		if a.addr.IsPrivate() != public {
			rank += 4
		}
		if a.iface == main {
			rank += 2
		}
		if a.addr == route {
			rank++
		}
		if rank > bestRank {
			best, bestRank = a, rank
		}
	}
	if bestRank == 0 {
		return netip.Addr{}, ""
	}
	if public && best.addr.IsPrivate() {
		return best.addr, fmt.Sprintf("%s (a private one: there is no public one)", best.iface)
	}
	return best.addr, best.iface
}
