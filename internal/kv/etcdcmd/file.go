package etcdcmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"flotilla/internal/fault"
)

// sections are the parts of etcd's configuration file that hold flags under other
// names: what to put before a name, and the names that differ.
var sections = map[string]struct {
	prefix string
	rename map[string]string
}{
	"client-transport-security": {"", map[string]string{
		"allowed-hostname": "client-cert-allowed-hostname",
	}},
	"peer-transport-security": {"peer-", map[string]string{
		"allowed-cn":                   "peer-cert-allowed-cn",
		"allowed-hostname":             "peer-cert-allowed-hostname",
		"skip-client-san-verification": "peer-skip-client-san-verification",
	}},
}

// fromFile sets what is still open from a configuration file in etcd's format:
// flags by name, TLS in two sections, durations in nanoseconds or as "10m". It
// reports all problems at once.
func (o *options) fromFile(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration file: %w", err)
	}
	values, err := decode(raw)
	if err != nil {
		return fmt.Errorf("configuration file %s: %w", path, err)
	}
	var errs []error
	for _, key := range sortedKeys(values) {
		section, nested := sections[key]
		if !nested {
			errs = append(errs, o.fromValue(key, key, values[key]))
			continue
		}
		inner, ok := values[key].(map[string]any)
		if !ok {
			errs = append(errs, fmt.Errorf("%s: want a section", key))
		}
		for _, name := range sortedKeys(inner) {
			flagName, ok := section.rename[name]
			if !ok {
				flagName = section.prefix + name
			}
			errs = append(errs, o.fromValue(key+"."+name, flagName, inner[name]))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fault.Code(fault.ExitUsage, fmt.Errorf("configuration file %s: %w", path, err))
	}
	return nil
}

func decode(raw []byte) (map[string]any, error) {
	asJSON, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return nil, err
	}
	var values map[string]any
	dec := json.NewDecoder(bytes.NewReader(asJSON))
	dec.UseNumber() // nanoseconds do not fit a float
	return values, dec.Decode(&values)
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// fromValue sets one flag from the file unless something stronger has set it. A key of
// etcd's that is no flag here counts as its variable does.
func (o *options) fromValue(where, name string, value any) error {
	f := o.flags.Lookup(name)
	_, past := o.past(name)
	switch {
	case f == nil && past && value != nil && value != "":
		return o.fromPast(where, name, asFlag(value))
	case f == nil && !past || name == "config-file" || name == "version":
		return o.unknown(fmt.Sprintf("key %q", where), name)
	case value == nil || o.isSet(name):
		return nil
	}
	text := asFlag(value)
	if text == "" { // as a variable
		return nil
	}
	err := o.flags.Set(name, text)
	if n, ok := value.(json.Number); err != nil && ok {
		if ns, nerr := n.Int64(); nerr == nil {
			text = time.Duration(ns).String()
			err = o.flags.Set(name, text)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: invalid value %q: %w", where, text, err)
	}
	return nil
}

// asFlag writes a value as one would on the command line.
func asFlag(value any) string {
	list, ok := value.([]any)
	if !ok {
		return fmt.Sprint(value)
	}
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = fmt.Sprint(v)
	}
	return strings.Join(parts, ",")
}
