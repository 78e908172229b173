package fleetd

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

// The manual has every setting, and no other.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../../docs/cli/fleetd.md")
	if err != nil {
		t.Fatal(err)
	}
	_, out, _ := fleetd(t, nil, "--print_config")
	manual := string(b)
	for scan := bufio.NewScanner(strings.NewReader(out)); scan.Scan(); {
		name, _, ok := strings.Cut(scan.Text(), "=")
		if ok && !strings.Contains(manual, "`"+name+"`") {
			t.Errorf("%s is not in the manual", name)
		}
	}
	for line := range strings.Lines(manual) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") || strings.Contains(cells[1], "=") {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			if name = strings.Trim(name, " `"); !isSetting(name) {
				t.Errorf("%s is in the manual, and is no setting", name)
			}
		}
	}
}

func isSetting(name string) bool {
	set := (&Config{}).settings()
	set.File("", []byte(name+"=\n"))
	for _, n := range set.Notices() {
		if strings.Contains(n.Msg, "unknown key") {
			return false
		}
	}
	return true
}
