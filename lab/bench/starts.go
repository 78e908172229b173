package main

import (
	"fmt"
	"strings"
)

// The units that are started: one that does nothing, and one that is active when its
// container runs.
const (
	plainUnit = `[Service]
ExecStart=/bin/sleep infinity
`
	dockerUnit = `[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/docker run --detach --name %p-%i busybox sleep infinity
ExecStop=/usr/bin/docker rm --force %p-%i
`
)

// prepare writes the unit, as a template that fleetctl finds and as one that systemd
// finds under another name.
func prepare(unit string) string {
	return "cat >ours@.service <<'E'\n" + unit + "E\ncp ours@.service bare@.service"
}

func ours(instances string) runner {
	return runner{"flotilla", "fleetctl start ours@" + instances + ".service", "fleetctl destroy ours@" + instances + ".service"}
}

// systemd writes the unit file and starts it: what any other way does too.
func systemd(instances string) runner {
	return runner{"systemd",
		"cp bare@.service /run/systemd/system/ && systemctl start bare@" + instances + ".service",
		"systemctl stop bare@" + instances + ".service; rm /run/systemd/system/bare@.service"}
}

// swarm creates services of one container each, sixteen requests at a time, as fleetctl
// does, and looks at the tasks until as many run.
func swarm(n int) runner {
	const tasks = `curl -s --unix-socket /run/docker.sock http://docker/v1.41/tasks`
	return runner{"swarm",
		fmt.Sprintf(`seq %d | xargs -P 16 -I{} docker service create --quiet --detach --no-resolve-image --stop-signal KILL --name s$i-{} busybox sleep infinity
until [ $(%s | grep -o '"State":"running"' | wc -l) = %d ]; do sleep 0.01; done`, n, tasks, n),
		`docker service ls --quiet | xargs docker service rm
until [ "$(` + tasks + `)" = "[]" ]; do sleep 0.1; done`}
}

// starts measures how long it takes until units run.
func (b *bench) starts(machines int) error {
	const braces = "{1..%d}"
	hundred := fmt.Sprintf(braces, 100)
	list := []contest{
		{what: "start one unit", rounds: b.rounds, prepare: prepare(plainUnit), ours: ours("$i"), others: []runner{systemd("$i")}},
		{what: "start 50 units", rounds: b.pairs, prepare: prepare(plainUnit), ours: ours(fmt.Sprintf(braces, 50)), others: []runner{systemd(fmt.Sprintf(braces, 50))}},
		{what: "start 100 units", rounds: b.pairs, prepare: prepare(plainUnit), ours: ours(hundred), others: []runner{systemd(hundred)}},
	}
	if err := b.holdAll(list); err != nil {
		return err
	}
	if machines == 1 || !b.swarm {
		return nil
	}
	if err := b.formSwarm(machines); err != nil {
		return err
	}
	if err := b.holdAll([]contest{
		{what: "start one unit; swarm: one container", rounds: b.pairs, prepare: prepare(plainUnit), ours: ours("$i"), others: []runner{swarm(1)}},
		{what: "start one container", rounds: b.pairs, prepare: prepare(dockerUnit), ours: ours("$i"), others: []runner{systemd("$i"), swarm(1)}},
		{what: "start 100 containers", rounds: b.pairs, prepare: prepare(dockerUnit), ours: ours(hundred), others: []runner{systemd(hundred), swarm(100)}},
	}); err != nil {
		return err
	}
	return b.leaveSwarm(machines)
}

func (b *bench) holdAll(list []contest) error {
	for _, c := range list {
		if err := b.hold(c); err != nil {
			return err
		}
	}
	return nil
}

// formSwarm makes one swarm of the machines' Docker engines.
func (b *bench) formSwarm(machines int) error {
	out, err := b.sh("docker swarm init --advertise-addr 10.10.1.1 >/dev/null && docker swarm join-token --quiet worker")
	if err != nil {
		return err
	}
	for i := 2; i <= machines; i++ {
		if _, err := b.on(i, "docker swarm join --token "+strings.TrimSpace(out)+" 10.10.1.1:2377"); err != nil {
			return err
		}
	}
	return nil
}

// leaveSwarm ends it, so that what is measured afterwards is without it.
func (b *bench) leaveSwarm(machines int) error {
	for i := machines; i > 0; i-- {
		if _, err := b.on(i, "docker swarm leave --force"); err != nil {
			return err
		}
	}
	return nil
}
