package machines

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"time"

	"flotilla/dist"
	"flotilla/internal/fault"
)

const (
	// binary is where a package of the distribution would put it.
	binary = "/usr/bin/flotilla"

	caFile   = "/etc/etcd/ca.pem"
	certFile = "/etc/etcd/machine.pem"
	keyFile  = "/etc/etcd/machine-key.pem"

	// clusterLimit is how long a cluster may take until every machine is in the
	// list of every machine.
	clusterLimit = 60 * time.Second
)

// members is how many of n machines are members of the store: as many as an odd
// number makes sense of, at most 5. The rest are clients of them.
func members(n int) int {
	switch {
	case n < 3:
		return 1
	case n < 7:
		return 3
	}
	return 5
}

// etcdEnv is a member's configuration, as etcd's own environment variables. Peers and
// clients of other machines use TLS with certificates of the lab's authority;
// loopback is plain, on the classic ports, as the talks and tools expect.
func etcdEnv(m Machine, members []Machine) string {
	var peers, hints []string
	for _, p := range members {
		peers = append(peers, p.Name+"="+peerURL(p))
		hints = append(hints, "https://"+p.Name+":2380") // /etc/hosts is the lab's DNS
	}
	return strings.Join([]string{
		"ETCD_NAME=" + m.Name,
		"ETCD_DATA_DIR=/var/lib/etcd",
		"ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:2379,http://127.0.0.1:4001," + clientURL(m),
		"ETCD_ADVERTISE_CLIENT_URLS=" + clientURL(m),
		"ETCD_LISTEN_PEER_URLS=" + peerURL(m),
		"ETCD_INITIAL_ADVERTISE_PEER_URLS=" + peerURL(m),
		"ETCD_INITIAL_CLUSTER=" + strings.Join(peers, ","),
		"ETCD_INITIAL_CLUSTER_STATE=new",
		"ETCD_PEER_HINTS=" + strings.Join(hints, ","),
		"ETCD_INITIAL_CLUSTER_TOKEN=lab",
		"ETCD_TRUSTED_CA_FILE=" + caFile,
		"ETCD_CERT_FILE=" + certFile,
		"ETCD_KEY_FILE=" + keyFile,
		"ETCD_CLIENT_CERT_AUTH=true",
		"ETCD_PEER_TRUSTED_CA_FILE=" + caFile,
		"ETCD_PEER_CERT_FILE=" + certFile,
		"ETCD_PEER_KEY_FILE=" + keyFile,
		"ETCD_PEER_CLIENT_CERT_AUTH=true",
	}, "\n") + "\n"
}

func clientURL(m Machine) string { return "https://" + m.Address + ":2379" }
func peerURL(m Machine) string   { return "https://" + m.Address + ":2380" }

// etcdctlEnv lets etcdctl speak to the members that it learns of, as root.
const etcdctlEnv = "ETCDCTL_CA_FILE=" + caFile + "\nETCDCTL_CERT_FILE=" + certFile + "\nETCDCTL_KEY_FILE=" + keyFile + "\n"

// addressEnv is what units find their machine's address by (EnvironmentFile=/etc/environment).
func addressEnv(m Machine) string {
	return "COREOS_PUBLIC_IPV4=" + m.Address + "\nCOREOS_PRIVATE_IPV4=" + m.Address + "\n"
}

// fleetConf is a machine's fleet.conf. A member asks itself first and the others when
// it is away; the rest ask all members.
func fleetConf(m Machine, members []Machine) string {
	var servers []string
	for _, p := range members {
		if p == m {
			servers = append([]string{"http://127.0.0.1:2379"}, servers...)
		} else {
			servers = append(servers, clientURL(p))
		}
	}
	return strings.Join([]string{
		"etcd_servers=" + strings.Join(servers, ","),
		"etcd_cafile=" + caFile,
		"etcd_certfile=" + certFile,
		"etcd_keyfile=" + keyFile,
		"public_ip=" + m.Address,
		"metadata=machine=" + m.Name,
	}, "\n") + "\n"
}

// Cluster installs program in every machine under its classic names, starts the
// store on the first of them and fleet on all, and returns when every machine has
// joined.
func (l *Lab) Cluster(ctx context.Context, program string) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := l.load()
	if err != nil {
		return err
	}
	if s.Members > 0 {
		return fault.Hint(fmt.Errorf("lab %s runs a cluster already", l.prefix), "flotilla lab exec %s1 fleetctl list-machines", l.prefix)
	}
	s.Members = members(len(s.Machines))
	if err := l.configure(s, program); err != nil {
		return err
	}
	if err := l.save(s); err != nil {
		return fmt.Errorf("lab %s: %w", l.prefix, err)
	}
	if err := l.each(ctx, s.Machines, "started store and fleet", l.startDaemons(s)); err != nil {
		return err
	}
	return l.waitJoined(ctx, s)
}

// configure writes all that the daemons need into the machines.
func (l *Lab) configure(s state, program string) error {
	began := time.Now()
	ca, err := newAuthority(began)
	if err != nil {
		return err
	}
	for i, m := range s.Machines {
		if err := l.Install(m.Name, program); err != nil {
			return err
		}
		cert, key, err := ca.issue(m)
		if err != nil {
			return err
		}
		files := map[string]string{
			caFile: ca.pem(), certFile: cert,
			"/etc/fleet/fleet.conf": fleetConf(m, s.Machines[:s.Members]),
			"/etc/environment":      etcdctlEnv + addressEnv(m),
		}
		if i < s.Members {
			files["/etc/default/etcd"] = etcdEnv(m, s.Machines[:s.Members])
		}
		maps.Copy(files, dist.Units())
		maps.Copy(files, dist.Users())
		d := l.disk(m.Name)
		if err := errors.Join(d.write(files, 0o644), d.write(map[string]string{keyFile: key}, 0o600)); err != nil {
			return fmt.Errorf("configure %s: %w", m.Name, err)
		}
	}
	l.say("program, certificates and configuration written in %s", since(began))
	return nil
}

// Install puts a program into the machine as flotilla, with a link for every classic
// name. What runs there keeps the program that it was started with.
func (l *Lab) Install(machine, program string) error {
	b, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("install on %s: %w", machine, err)
	}
	links, err := exec.Command(program, "__links").Output()
	if err != nil {
		return fmt.Errorf("install on %s: ask %s for the names it goes by: %w", machine, program, err)
	}
	targets := map[string]string{}
	for name := range strings.Lines(string(links)) {
		name = strings.TrimSpace(name)
		targets["/usr/bin/"+name] = "flotilla"
	}
	d := l.disk(machine)
	if err := errors.Join(d.write(map[string]string{binary: string(b)}, 0o755), d.link(targets)); err != nil {
		return fmt.Errorf("install on %s: %w", machine, err)
	}
	return nil
}

// startDaemons enables the daemons and starts them; the jobs are waited for by
// waitJoined, since a member is ready only when others are.
func (l *Lab) startDaemons(s state) func(context.Context, Machine) error {
	return func(ctx context.Context, m Machine) error {
		units := []string{"fleet.socket", "fleet.service"}
		for _, member := range s.Machines[:s.Members] {
			if member == m {
				units = append(units, "etcd.service")
			}
		}
		// The store's user, and its leave to read the machine's key.
		for _, command := range [][]string{{"systemd-sysusers"}, {"chgrp", "etcd", keyFile}, {"chmod", "0640", keyFile}} {
			if _, err := l.Output(ctx, m.Name, command...); err != nil {
				return err
			}
		}
		if _, err := l.Output(ctx, m.Name, append([]string{"systemctl", "enable", "--quiet"}, units...)...); err != nil {
			return err
		}
		_, err := l.Output(ctx, m.Name, append([]string{"systemctl", "start", "--no-block"}, units...)...)
		return err
	}
}

// waitJoined waits until every machine lists all machines.
func (l *Lab) waitJoined(ctx context.Context, s state) error {
	return l.each(ctx, s.Machines, fmt.Sprintf("sees %d machines", len(s.Machines)), func(ctx context.Context, m Machine) error {
		var last error
		seen := 0
		err := until(ctx, clusterLimit, func(ctx context.Context) bool {
			var out string
			out, last = l.Output(ctx, m.Name, "fleetctl", "list-machines", "--no-legend")
			seen = strings.Count(out, "\n")
			return last == nil && seen == len(s.Machines)
		})
		if err == nil {
			return nil
		}
		return fault.Hint(fmt.Errorf("%s sees %d of %d machines: %w", m.Name, seen, len(s.Machines), errors.Join(err, last)),
			"flotilla lab exec %s journalctl -b -u etcd -u fleet", m.Name)
	})
}
