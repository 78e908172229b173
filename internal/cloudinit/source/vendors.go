package source

import (
	"context"
	"errors"
	"net/http"
)

// GCE is Google's metadata service below base. Keys are not read: Google's own agent
// puts them in place, by user.
func GCE(base string, f Fetcher) Source {
	s := newService("gce-metadata-service", base, gceInstance, f)
	s.header = http.Header{"Metadata-Flavor": {"Google"}} // without it there is no answer
	return gce{s}
}

type gce struct{ service }

const gceInstance = "computeMetadata/v1/instance/"

func (g gce) UserData(ctx context.Context) ([]byte, error) {
	return g.get(ctx, gceInstance+"attributes/user-data")
}

func (g gce) Metadata(ctx context.Context) (m Metadata, err error) {
	if m.Hostname, err = g.text(ctx, gceInstance+"hostname"); err != nil {
		return Metadata{}, err
	}
	err = fill(ctx, g.address, map[string]*string{
		gceInstance + "network-interfaces/0/ip":                           &m.PrivateIPv4,
		gceInstance + "network-interfaces/0/access-configs/0/external-ip": &m.PublicIPv4,
	})
	return m, err
}

// DigitalOcean is that vendor's metadata service below base.
func DigitalOcean(base string, f Fetcher) Source {
	return digitalOcean{newService("digitalocean-metadata-service", base, "metadata/v1.json", f)}
}

type digitalOcean struct{ service }

func (d digitalOcean) UserData(ctx context.Context) ([]byte, error) {
	return d.get(ctx, "metadata/v1/user-data")
}

// doInterface is what is read of a network interface here.
type doInterface struct {
	IPv4 *struct {
		Address string `json:"ip_address"`
	} `json:"ipv4"`
	IPv6 *struct {
		Address string `json:"ip_address"`
	} `json:"ipv6"`
}

func (d digitalOcean) Metadata(ctx context.Context) (Metadata, error) {
	var said struct {
		Hostname   string   `json:"hostname"`
		PublicKeys []string `json:"public_keys"`
		Interfaces struct {
			Public, Private []doInterface
		} `json:"interfaces"`
	}
	raw, err := d.json(ctx, "metadata/v1.json", &said)
	if err != nil {
		return Metadata{}, err
	}
	m := Metadata{Hostname: said.Hostname, SSHKeys: numbered(said.PublicKeys), NetworkConfig: raw}
	var errs []error
	take := func(to *string, address string) {
		if *to == "" {
			var err error
			*to, err = checkAddress(d.Name()+"metadata/v1.json", address)
			errs = append(errs, err)
		}
	}
	for _, i := range said.Interfaces.Public {
		if i.IPv4 != nil {
			take(&m.PublicIPv4, i.IPv4.Address)
		}
		if i.IPv6 != nil {
			take(&m.PublicIPv6, i.IPv6.Address)
		}
	}
	for _, i := range said.Interfaces.Private {
		if i.IPv4 != nil {
			take(&m.PrivateIPv4, i.IPv4.Address)
		}
		if i.IPv6 != nil {
			take(&m.PrivateIPv6, i.IPv6.Address)
		}
	}
	return m, errors.Join(errs...)
}

// Packet is that vendor's metadata service below base.
func Packet(base string, f Fetcher) Source {
	return packet{newService("packet-metadata-service", base, "metadata", f)}
}

type packet struct{ service }

func (p packet) UserData(ctx context.Context) ([]byte, error) { return p.get(ctx, "userdata") }

func (p packet) Metadata(ctx context.Context) (Metadata, error) {
	var said struct {
		Hostname string   `json:"hostname"`
		SSHKeys  []string `json:"ssh_keys"`
		Network  struct {
			Addresses []struct {
				Family  int    `json:"address_family"`
				Public  bool   `json:"public"`
				Address string `json:"address"`
			} `json:"addresses"`
		} `json:"network"`
	}
	raw, err := p.json(ctx, "metadata", &said)
	if err != nil {
		return Metadata{}, err
	}
	m := Metadata{Hostname: said.Hostname, SSHKeys: numbered(said.SSHKeys), NetworkConfig: raw}
	for _, a := range said.Network.Addresses {
		to := map[int]map[bool]*string{
			4: {true: &m.PublicIPv4, false: &m.PrivateIPv4},
			6: {true: &m.PublicIPv6, false: &m.PrivateIPv6},
		}[a.Family][a.Public]
		if to == nil || *to != "" {
			continue
		}
		if *to, err = checkAddress(p.Name()+"metadata", a.Address); err != nil {
			return Metadata{}, err
		}
	}
	return m, nil
}
