package main

import (
	"strings"
	"testing"
	"time"
)

func TestIdleness(t *testing.T) {
	before, err := parseUsage("7\n40960 20480 10240\n100\n1024 1024 1024\n50\n81920 81920 40960\n1000\n")
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseUsage("9\n40960 20480 10240\n160\n1024 1024 1024\n53\n81920 81920 40960\n1120\n")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(idleness{[]usage{before}, []usage{after}, time.Minute}.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"idle: writes to the store 2.0 revisions a minute (renewing a lease makes none)",
		"idle: etcd on machine 1 20.0 MB (10.0 MB its own, 40.0 MB with what it shares) 1.00 % of a core",
		"idle: fleet on machine 1 1.0 MB (1.0 MB its own, 1.0 MB with what it shares) 0.05 % of a core",
		"idle: stock on machine 1 80.0 MB (40.0 MB its own, 80.0 MB with what it shares) 2.00 % of a core",
		"idle member: of a core 1.00 % etcd 3.4 2.00 % 0.50",
		"idle member: resident 40.0 MB etcd 3.4 80.0 MB 0.50",
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	for _, text := range []string{"", "7 1 2 3", "7 a b c d 1 1 1 1 1 1 1 1"} {
		if _, err := parseUsage(text); err == nil {
			t.Errorf("%q is no usage, and nobody says so", text)
		}
	}
}
