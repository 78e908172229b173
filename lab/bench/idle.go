package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rest is how long the cluster is left alone before it is called idle.
const rest = 10 * time.Second

// quiet watches a cluster that does nothing but run ten units, with an idle cluster of
// etcd 3.4 beside it.
func (b *bench) quiet(n int) error {
	if err := b.formStock(n); err != nil {
		return err
	}
	if _, err := b.sh("cd /tmp; " + prepare(plainUnit) + "\nfleetctl start ours@{1..10}.service"); err != nil {
		return err
	}
	if err := b.pause(rest); err != nil {
		return err
	}
	before, err := b.daemons(n)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.pause(b.idle); err != nil {
		return err
	}
	after, err := b.daemons(n)
	if err != nil {
		return err
	}
	fmt.Print(idleness{before, after, time.Since(began)})
	return nil
}

func (b *bench) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

// formStock starts a member of Debian's etcd in each machine, by the unit file and the
// settings of ours: the same certificates, peers, user and walls, other ports. In a
// machine /usr/bin/etcd is ours.
func (b *bench) formStock(n int) error {
	const script = `cat >/usr/local/bin/stock; chmod +x /usr/local/bin/stock
sed -E 's/:(2379|2380)/:1\1/g; s/,?http:[^,]*:4001//; s/lab$/stock/; /HINTS/d' /etc/default/etcd >/run/stock.env
printf '%s\n' ETCD_DATA_DIR=/var/lib/stock ETCD_ENABLE_V2=true ETCD_LOG_LEVEL=error >>/run/stock.env
sed -E 's,^ExecStart=.*,ExecStart=/usr/local/bin/stock,; s,/etc/default/etcd,/run/stock.env,; s,^(StateDirectory|SyslogIdentifier)=etcd,\1=stock,; /^Alias=/d' \
	$(systemctl show -P FragmentPath etcd.service) >/run/systemd/system/stock.service
systemctl daemon-reload && systemctl start --no-block stock.service`
	program, err := os.ReadFile(stockEtcd)
	if err != nil {
		return fmt.Errorf("%w (Debian's package etcd-server has it)", err)
	}
	for i := range n {
		if _, err := b.fed(i+1, bytes.NewReader(program), script); err != nil {
			return err
		}
	}
	for i := range n {
		if _, err := b.on(i+1, "timeout 60 systemctl start stock.service || { journalctl -u stock.service -n 20 --no-pager; false; }"); err != nil {
			return err
		}
	}
	return nil
}

// stockEtcd is what the package etcd-server installs.
const stockEtcd = "/usr/bin/etcd"

// daemonNames are the units that are watched, in the order of stock: ours, and theirs.
var daemonNames = []string{"etcd", "fleet", "stock"}

// usage is what the daemons of one machine have used so far.
type usage struct {
	revision int64
	memory   []memory // by daemonNames
	ticks    []int64  // CPU time in hundredths of a second
}

// memory is a process's in kB, as smaps_rollup (proc(5)) counts it: all pages, all
// pages with those of the one binary shared out among the daemons that run it, and
// those that are no part of a file.
type memory struct{ rss, pss, own int64 }

func mb(kB int64) float64 { return float64(kB) / 1024 }

// idleness is what the daemons of each machine used between two looks.
type idleness struct {
	before, after []usage
	elapsed       time.Duration
}

// share is what the j-th daemon of the i-th machine used, in hundredths of a core.
func (d idleness) share(i, j int) float64 {
	return float64(d.after[i].ticks[j]-d.before[i].ticks[j]) / d.elapsed.Seconds()
}

// String is a line for each daemon, and at last how our members compare.
func (d idleness) String() string {
	var b strings.Builder
	writes := float64(d.after[0].revision-d.before[0].revision) / d.elapsed.Minutes()
	fmt.Fprintf(&b, "%-28s %9.1f revisions a minute (renewing a lease makes none)\n", "idle: writes to the store", writes)
	var cpu, resident [3]float64 // of all machines, by daemonNames
	for i, u := range d.after {
		for j, name := range daemonNames {
			m := u.memory[j]
			cpu[j] += d.share(i, j)
			resident[j] += mb(m.rss)
			fmt.Fprintf(&b, "%-28s %9.1f MB   (%.1f MB its own, %.1f MB with what it shares)   %.2f %% of a core\n",
				fmt.Sprintf("idle: %s on machine %d", name, i+1), mb(m.pss), mb(m.own), mb(m.rss), d.share(i, j))
		}
	}
	n := float64(len(d.after))
	fmt.Fprintf(&b, "%-44s %8.2f %%   %-10s %8.2f %%   %5.2f\n", "idle member: of a core", cpu[0]/n, "etcd 3.4", cpu[2]/n, cpu[0]/cpu[2])
	fmt.Fprintf(&b, "%-44s %7.1f MB   %-10s %7.1f MB   %5.2f\n", "idle member: resident", resident[0]/n, "etcd 3.4", resident[2]/n, resident[0]/resident[2])
	return b.String()
}

func (b *bench) daemons(n int) ([]usage, error) {
	script := `curl -s -o /dev/null -D - http://127.0.0.1:2379/v2/keys | tr -d '\r' | awk 'tolower($1)=="x-etcd-index:"{print $2}'
for s in ` + strings.Join(daemonNames, " ") + `; do p=$(systemctl show -P MainPID $s.service)
awk '/^Rss:|^Pss:|^Anonymous:/{print $2}' /proc/$p/smaps_rollup; awk '{print $14+$15}' /proc/$p/stat; done`
	var all []usage
	for i := range n {
		out, err := b.on(i+1, script)
		if err != nil {
			return nil, err
		}
		u, err := parseUsage(out)
		if err != nil {
			return nil, fmt.Errorf("read usage of machine %d: %w\n%s", i+1, err, out)
		}
		all = append(all, u)
	}
	return all, nil
}

// parseUsage reads the revision, and four numbers for each daemon.
func parseUsage(text string) (u usage, err error) {
	const each = 4
	var v []int64
	for _, f := range strings.Fields(text) {
		x, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, err
		}
		v = append(v, x)
	}
	if want := 1 + each*len(daemonNames); len(v) != want {
		return u, fmt.Errorf("%d numbers in place of %d", len(v), want)
	}
	u.revision = v[0]
	for d := range slices.Chunk(v[1:], each) {
		u.memory = append(u.memory, memory{rss: d[0], pss: d[1], own: d[2]})
		u.ticks = append(u.ticks, d[3])
	}
	return u, nil
}
