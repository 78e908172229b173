package source

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"flotilla/internal/fault"
)

// WAAgent is what Azure's agent has fetched into dir. It is available once the agent
// has made the file "provisioned".
func WAAgent(dir string) Source { return waagent{dir} }

type waagent struct{ dir string }

func (w waagent) Name() string { return w.dir }
func (w waagent) Type() string { return "waagent" }

func (w waagent) Available(context.Context) error {
	_, err := os.Stat(filepath.Join(w.dir, "provisioned"))
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Hint(fmt.Errorf("%s does not exist", filepath.Join(w.dir, "provisioned")), "does Azure's agent (waagent) run?")
	}
	return err
}

func (w waagent) UserData(context.Context) ([]byte, error) {
	return readIfThere(filepath.Join(w.dir, "CustomData"))
}

func (w waagent) Metadata(context.Context) (Metadata, error) {
	path := filepath.Join(w.dir, "SharedConfig.xml")
	raw, err := readIfThere(path)
	if err != nil || raw == nil {
		return Metadata{}, err
	}
	m, err := sharedConfig(raw)
	if err != nil {
		return Metadata{}, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// sharedConfig reads this machine's addresses out of Azure's description of a
// deployment: the instance that <Incarnation> names, and the load balancer's address of
// its first public endpoint.
func sharedConfig(raw []byte) (m Metadata, err error) {
	var said struct {
		XMLName     xml.Name `xml:"SharedConfig"`
		Incarnation struct {
			Instance string `xml:"instance,attr"`
		}
		Instances []struct {
			ID        string `xml:"id,attr"`
			Address   string `xml:"address,attr"`
			Endpoints []struct {
				Public   string `xml:"isPublic,attr"`
				Balanced string `xml:"loadBalancedPublicAddress,attr"`
			} `xml:"InputEndpoints>Endpoint"`
		} `xml:"Instances>Instance"`
	}
	if err := xml.Unmarshal(raw, &said); err != nil {
		return Metadata{}, err
	}
	for _, i := range said.Instances {
		if i.ID != said.Incarnation.Instance {
			continue
		}
		if m.PrivateIPv4, err = checkAddress("instance "+i.ID, i.Address); err != nil {
			return Metadata{}, err
		}
		for _, e := range i.Endpoints {
			if e.Balanced == "" || e.Public != "true" && e.Public != "1" {
				continue
			}
			host, _, err := net.SplitHostPort(e.Balanced)
			if err != nil {
				return Metadata{}, fmt.Errorf("public address of an endpoint: %w", err)
			}
			m.PublicIPv4, err = checkAddress("public address of an endpoint", host)
			return m, err
		}
	}
	return m, nil
}
