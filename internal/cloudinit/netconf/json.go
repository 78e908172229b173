package netconf

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// parseAddr is netip.ParseAddr with an error that says where, and without zones.
func parseAddr(where, text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%s: %q is no IP address", where, shorten(text))
	}
	return a, nil
}

// parseNet reads an address with a netmask (255.255.255.0) or a number of bits.
func parseNet(where, address, mask string) (netip.Prefix, error) {
	a, err := parseAddr(where, address)
	if err != nil {
		return netip.Prefix{}, err
	}
	bits, err := strconv.Atoi(mask)
	if err != nil {
		if bits, err = maskBits(mask); err != nil {
			return netip.Prefix{}, fmt.Errorf("%s: %w", where, err)
		}
	}
	p := netip.PrefixFrom(a, bits)
	if !p.IsValid() {
		return netip.Prefix{}, fmt.Errorf("%s: %s has no prefix of %d bits", where, a, bits)
	}
	return p, nil
}

// maskBits counts the ones of a netmask, after which there may be only zeros.
func maskBits(mask string) (int, error) {
	m, err := netip.ParseAddr(mask)
	if err != nil || m.Zone() != "" {
		return 0, fmt.Errorf("%q is no netmask", shorten(mask))
	}
	binary := ""
	for _, b := range m.AsSlice() {
		binary += fmt.Sprintf("%08b", b)
	}
	ones := strings.TrimRight(binary, "0")
	if strings.Contains(ones, "0") {
		return 0, fmt.Errorf("%q is no netmask: it has ones after zeros", mask)
	}
	return len(ones), nil
}

// digitalOcean reads that vendor's metadata/v1.json. Interfaces are known by MAC alone;
// the default routes are those of the public ones.
func digitalOcean(data []byte) ([]link, []string, error) {
	var said struct {
		DNS struct {
			Nameservers []string `json:"nameservers"`
		} `json:"dns"`
		Interfaces struct {
			Public, Private []doInterface
		} `json:"interfaces"`
	}
	if err := json.Unmarshal(data, &said); err != nil {
		return nil, nil, err
	}
	var dns []netip.Addr
	for _, text := range said.DNS.Nameservers {
		a, err := parseAddr("dns.nameservers", text)
		if err != nil {
			return nil, nil, err
		}
		dns = append(dns, a)
	}
	var links []link
	for i, iface := range slices.Concat(said.Interfaces.Public, said.Interfaces.Private) {
		public := i < len(said.Interfaces.Public)
		l, err := iface.link(public)
		if err != nil {
			return nil, nil, fmt.Errorf("interface %s: %w", shorten(iface.MAC), err)
		}
		if public {
			l.dns = dns
		}
		links = append(links, l)
	}
	return links, nil, nil
}

type doInterface struct {
	MAC    string `json:"mac"`
	IPv4   *doV4  `json:"ipv4"`
	Anchor *doV4  `json:"anchor_ipv4"`
	IPv6   *struct {
		Address string `json:"ip_address"`
		Bits    int    `json:"cidr"`
		Gateway string `json:"gateway"`
	} `json:"ipv6"`
}

type doV4 struct {
	Address string `json:"ip_address"`
	Netmask string `json:"netmask"`
	Gateway string `json:"gateway"`
}

func (d doInterface) link(public bool) (link, error) {
	l := link{mac: d.MAC}
	add := func(where, address, mask, gateway string) error {
		p, err := parseNet(where, address, mask)
		if err != nil {
			return err
		}
		l.addresses = append(l.addresses, p)
		if gateway == "" || !public {
			return nil
		}
		via, err := parseAddr(where+" gateway", gateway)
		l.routes = append(l.routes, route{via: via})
		return err
	}
	if d.IPv4 != nil {
		if err := add("ipv4", d.IPv4.Address, d.IPv4.Netmask, d.IPv4.Gateway); err != nil {
			return link{}, err
		}
	}
	if d.IPv6 != nil {
		if err := add("ipv6", d.IPv6.Address, strconv.Itoa(d.IPv6.Bits), d.IPv6.Gateway); err != nil {
			return link{}, err
		}
	}
	if d.Anchor != nil { // for floating addresses: no default route of its own
		if err := add("anchor_ipv4", d.Anchor.Address, d.Anchor.Netmask, ""); err != nil {
			return link{}, err
		}
	}
	return l, nil
}

// packetPrivate is what is reached through the gateway of a private address.
var packetPrivate = netip.MustParsePrefix("10.0.0.0/8")

// packet reads that vendor's metadata document: one bond of all interfaces, which has
// all addresses.
func packet(data []byte) ([]link, []string, error) {
	var said struct {
		Network struct {
			Bonding struct {
				Mode *int `json:"mode"`
			} `json:"bonding"`
			Interfaces []struct {
				Name string `json:"name"`
				MAC  string `json:"mac"`
			} `json:"interfaces"`
			Addresses []packetAddress `json:"addresses"`
		} `json:"network"`
	}
	if err := json.Unmarshal(data, &said); err != nil {
		return nil, nil, err
	}
	n := said.Network
	if len(n.Interfaces) == 0 {
		return nil, nil, fmt.Errorf("no interfaces")
	}
	mode := 4 // of the bond: 802.3ad
	if n.Bonding.Mode != nil {
		mode = *n.Bonding.Mode
	}
	if mode < 0 || mode >= len(bondModes) {
		return nil, nil, fmt.Errorf("bonding mode %d: there are 0 to %d", mode, len(bondModes)-1)
	}
	bond := link{name: "bond0", kind: "bond", setMAC: n.Interfaces[0].MAC,
		bond: []setting{{"Mode", bondModes[mode]}, {"MIIMonitorSec", "100ms"}}}
	if bondModes[mode] == "802.3ad" {
		bond.bond = append(bond.bond, setting{"LACPTransmitRate", "fast"}, setting{"TransmitHashPolicy", "layer3+4"})
	}
	var links []link
	for _, i := range n.Interfaces {
		links = append(links, link{name: i.Name, mac: i.MAC, master: bond.name})
	}
	for i, a := range n.Addresses {
		if err := a.addTo(&bond); err != nil {
			return nil, nil, fmt.Errorf("address %d: %w", i, err)
		}
	}
	return append(links, bond), nil, nil
}

// bondModes are the kernel's names of the modes, by number.
var bondModes = []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}

type packetAddress struct {
	Public  bool   `json:"public"`
	Address string `json:"address"`
	Bits    int    `json:"cidr"`
	Gateway string `json:"gateway"`
}

func (a packetAddress) addTo(l *link) error {
	p, err := parseNet("address", a.Address, strconv.Itoa(a.Bits))
	if err != nil {
		return err
	}
	l.addresses = append(l.addresses, p)
	if a.Gateway == "" {
		return nil
	}
	via, err := parseAddr("gateway", a.Gateway)
	if err != nil {
		return err
	}
	switch {
	case a.Public:
		l.routes = append(l.routes, route{via: via})
	case via.Is4():
		l.routes = append(l.routes, route{to: packetPrivate, via: via})
	}
	return nil
}

// vmware reads guestinfo variables, without their prefix, as a JSON object of texts.
func vmware(data []byte) ([]link, []string, error) {
	var said map[string]string
	if err := json.Unmarshal(data, &said); err != nil {
		return nil, nil, err
	}
	var dns []netip.Addr
	for n := 0; said[fmt.Sprintf("dns.server.%d", n)] != ""; n++ {
		key := fmt.Sprintf("dns.server.%d", n)
		a, err := parseAddr(key, said[key])
		if err != nil {
			return nil, nil, err
		}
		dns = append(dns, a)
	}
	var links []link
	for n := 0; ; n++ {
		at := fmt.Sprintf("interface.%d.", n)
		if !slices.ContainsFunc([]string{"name", "mac", "dhcp", "role"}, func(k string) bool { return said[at+k] != "" }) {
			return links, nil, nil
		}
		l, err := vmwareLink(said, at)
		if err != nil {
			return nil, nil, err
		}
		l.dns = dns
		links = append(links, l)
	}
}

func vmwareLink(said map[string]string, at string) (link, error) {
	l := link{name: said[at+"name"], mac: said[at+"mac"]}
	switch dhcp := strings.ToLower(said[at+"dhcp"]); dhcp {
	case "", "no", "false", "0":
	case "yes", "true", "1":
		l.dhcp = "yes"
	default:
		return link{}, fmt.Errorf("%sdhcp: %q: want yes or no", at, shorten(dhcp))
	}
	for n := 0; ; n++ {
		key := fmt.Sprintf("%sip.%d.address", at, n)
		if said[key] == "" {
			break
		}
		p, err := netip.ParsePrefix(said[key])
		if err != nil {
			return link{}, fmt.Errorf("%s: %q is no address with a prefix length", key, shorten(said[key]))
		}
		l.addresses = append(l.addresses, p)
	}
	for n := 0; ; n++ {
		key := fmt.Sprintf("%sroute.%d.", at, n)
		gateway, to := said[key+"gateway"], said[key+"destination"]
		if gateway == "" && to == "" {
			break
		}
		via, err := parseAddr(key+"gateway", gateway)
		if err != nil {
			return link{}, err
		}
		r := route{via: via}
		if to != "" {
			if r.to, err = netip.ParsePrefix(to); err != nil {
				return link{}, fmt.Errorf("%sdestination: %q is no network", key, shorten(to))
			}
		}
		l.routes = append(l.routes, r)
	}
	return l, nil
}
