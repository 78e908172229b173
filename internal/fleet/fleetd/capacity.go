package fleetd

import (
	"fmt"
	"strconv"

	"flotilla/internal/fleet/agent"
	"flotilla/internal/unitfile"
)

// capacity is what units may ask for on this machine: thousandths of a processor, and
// bytes; 0 is not known, which is room for anything. At least a half of each is for
// units, however much is reserved.
func (c Config) capacity() (cores, memory int64) {
	// Without an answer of the kernel memory is 0: not known.
	cores, memory, _ = agent.Capacity(c.Cores, c.Memory)
	return cores - min(c.ReserveCores, cores/2), memory - min(c.ReserveMemory, memory/2)
}

// Share is the configuration of each of n machines that this one's processors and
// memory are divided among.
func (c Config) Share(n int) Config {
	whole := c
	whole.ReserveCores, whole.ReserveMemory = 0, 0
	cores, memory := whole.capacity()
	c.Cores, c.Memory = cores/int64(n), memory/int64(n)
	return c
}

func (c *Config) setCores(v string) error         { return parseCores(v, &c.Cores) }
func (c *Config) setReserveCores(v string) error  { return parseCores(v, &c.ReserveCores) }
func (c *Config) setMemory(v string) error        { return parseBytes(v, &c.Memory) }
func (c *Config) setReserveMemory(v string) error { return parseBytes(v, &c.ReserveMemory) }

// parseCores reads a number of processors; empty or 0 is 0.
func parseCores(v string, into *int64) error {
	if *into = 0; v == "" || v == "0" {
		return nil
	}
	n, err := unitfile.ParseCores(v)
	if err == nil {
		*into = n
	}
	return err
}

// parseBytes reads an amount of memory; empty or 0 is 0.
func parseBytes(v string, into *int64) error {
	if *into = 0; v == "" || v == "0" {
		return nil
	}
	n, err := unitfile.ParseBytes(v)
	switch {
	case err != nil:
		return err
	case n > 1<<62:
		return fmt.Errorf("%q is more than any machine has", v)
	}
	*into = int64(n)
	return nil
}

func showCores(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(n)/1000, 'g', -1, 64)
}

// showBytes writes an amount in the largest unit of 1024 that it is a whole number of.
func showBytes(n int64) string {
	if n == 0 {
		return ""
	}
	suffix := ""
	for _, s := range []string{"K", "M", "G", "T"} {
		if n%1024 != 0 {
			break
		}
		n, suffix = n/1024, s
	}
	return strconv.FormatInt(n, 10) + suffix
}
