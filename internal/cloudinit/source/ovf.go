package source

import (
	"encoding/xml"
	"fmt"
)

// ovfProperties reads the properties of an OVF environment (DSP0243, section 9.5): key
// to value.
func ovfProperties(raw []byte) (map[string]string, error) {
	var said struct {
		XMLName    xml.Name `xml:"Environment"`
		Properties []struct {
			Key   string `xml:"key,attr"`
			Value string `xml:"value,attr"`
		} `xml:"PropertySection>Property"`
	}
	if err := xml.Unmarshal(raw, &said); err != nil {
		return nil, fmt.Errorf("no OVF environment: %w", err)
	}
	out := make(map[string]string)
	for _, p := range said.Properties {
		out[p.Key] = p.Value
	}
	return out, nil
}
