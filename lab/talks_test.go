package lab

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"flotilla/internal/lab/machines"
)

// What talks about fleet have shown, typed as they typed it: a file of testdata/talks for
// each, read from top to bottom. Beside the commands of testscript there are
//
//	$ COMMAND LINE              typed in a shell, in the directory with the script's files
//	await [-gone|-count=N] PATTERN COMMAND LINE
//	                            typed again until what it prints matches (so often), or no longer does
//	login ADDRESS               go to another machine, to type there
//	metadata ADDRESS KEY=VALUE  what the machine's fleet.conf says of it; - is nothing
//	lose ADDRESS                cut the machine's power
//	regain ADDRESS              and switch it on again
//	token N                     have a discovery service, and a token for a cluster of N members
//	boot ADDRESS FILE           reboot with this document, DISCOVERY in it being the token
//	reboot ADDRESS              reboot as it is
func TestTalksFleet(t *testing.T) {
	c := scenario(t)
	c.withRegistry()
	// The second machine stands for the laptop of the first talk: it has a key, and has
	// been to the others before.
	laptop := c.names()[1]
	c.withSSH(laptop)
	c.on(laptop, "sh", "-c", "mkdir -p ~/.fleetctl && ssh-keyscan 10.10.1.1 10.10.1.2 10.10.1.3 >~/.fleetctl/known_hosts 2>/dev/null")
	play(t, "testdata/talks")
}

// What fleetctl does that fleet never did, on real machines: a file of testdata/fleet for
// each, written like those of the talks.
func TestFleetctl(t *testing.T) {
	scenario(t)
	play(t, "testdata/fleet")
}

// play types the scripts of a directory, one after the other.
func play(t *testing.T, dir string) {
	files, err := filepath.Glob(dir + "/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	playFiles(t, func() { tidy(t) }, files...)
}

// playFiles types scripts; after each the machines are left as after leaves them.
func playFiles(t *testing.T, after func(), files ...string) {
	testscript.RunT(inTurn{t}, testscript.Params{
		Files: files,
		Setup: func(env *testscript.Env) error {
			s := &typist{at: (&cluster{T: t}).names()[0]}
			env.Values[typistKey{}] = s
			env.Defer(after)
			return s.lay(env.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"$": typed, "await": await, "login": login, "metadata": metadata, "lose": lose, "regain": regain,
			"token": token, "boot": boot, "reboot": reboot,
		},
	})
}

// tidy leaves the machines as the next script wants them.
func tidy(t *testing.T) {
	c := &cluster{T: t}
	c.destroyAll()
	for _, m := range c.names() {
		c.on(m, "sh", "-c", "docker ps --all --quiet | xargs -r docker rm --force")
	}
}

// inTurn runs scripts one after the other: they share the machines.
type inTurn struct{ *testing.T }

func (inTurn) Parallel() {}
func (t inTurn) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(inTurn{t}) })
}
func (inTurn) Verbose() bool { return testing.Verbose() }

// desk is the directory of a machine that lines are typed in.
const desk = "/root/talk"

// typist types a script's lines.
type typist struct {
	at string // the machine that they are typed on
}

type typistKey struct{}

func theTypist(ts *testscript.TestScript) *typist { return ts.Value(typistKey{}).(*typist) }

// lay puts the script's files onto the desk of every machine.
func (s *typist) lay(dir string) error {
	all, err := lab.Machines()
	if err != nil {
		return err
	}
	for _, m := range all {
		if _, err := s.run(m.Name, "rm -rf "+desk+" && mkdir "+desk); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		for _, m := range all {
			if err := lab.WriteFile(m.Name, filepath.Join(desk, rel), text, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

// said is what a line has printed.
type said struct{ out, err bytes.Buffer }

// typingLimit is how long a line may take.
const typingLimit = 90 * time.Second

func (s *typist) run(machine, line string) (*said, error) {
	ctx, cancel := context.WithTimeout(context.Background(), typingLimit)
	defer cancel()
	var out said
	err := lab.Exec(ctx, machine, machines.Streams{Out: &out.out, Err: &out.err},
		"bash", "-O", "expand_aliases", "-c", "cd "+desk+" 2>/dev/null; alias f=fleetctl\n"+line)
	return &out, err
}

func (o *said) tell(ts *testscript.TestScript) {
	ts.Stdout().Write(o.out.Bytes())
	ts.Stderr().Write(o.err.Bytes())
}

func typed(ts *testscript.TestScript, neg bool, args []string) {
	s := theTypist(ts)
	out, err := s.run(s.at, strings.Join(args, " "))
	out.tell(ts)
	if (err != nil) != neg {
		ts.Fatalf("%v\n%s%s", err, &out.out, &out.err)
	}
}

// awaitLimit is how long the cluster may take to become what a script waits for.
const awaitLimit = 40 * time.Second

func await(ts *testscript.TestScript, neg bool, args []string) {
	gone := len(args) > 0 && args[0] == "-gone"
	least := 1
	if gone {
		args = args[1:]
	} else if len(args) > 0 && strings.HasPrefix(args[0], "-count=") {
		n, err := strconv.Atoi(strings.TrimPrefix(args[0], "-count="))
		ts.Check(err)
		least, args = n, args[1:]
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await [-gone|-count=N] PATTERN COMMAND LINE")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	s, line := theTypist(ts), strings.Join(args[1:], " ")
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(awaitLimit); ; <-tick.C {
		out, err := s.run(s.at, line)
		seen := len(pattern.FindAll(out.out.Bytes(), -1)) >= least
		// What cannot be asked is not gone.
		if seen != gone && (err == nil || !gone) {
			out.tell(ts)
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("not within %v: %v\n%s%s", awaitLimit, err, &out.out, &out.err)
		}
	}
}

// named returns the name of the machine with the address.
func named(ts *testscript.TestScript, address string) string {
	all, err := lab.Machines()
	ts.Check(err)
	i := slices.IndexFunc(all, func(m machines.Machine) bool { return m.Address == address })
	if i < 0 {
		ts.Fatalf("no machine has the address %s", address)
	}
	return all[i].Name
}

func login(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: login ADDRESS")
	}
	theTypist(ts).at = named(ts, args[0])
}

func metadata(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: metadata ADDRESS KEY=VALUE,...")
	}
	machine := named(ts, args[0])
	ts.Defer(func() { describe(ts, machine, "machine="+machine) })
	describe(ts, machine, strings.TrimPrefix(args[1], "-"))
}

// describe rewrites the metadata of a machine's fleet.conf and has fleetd read it.
func describe(ts *testscript.TestScript, machine, metadata string) {
	s := theTypist(ts)
	_, err := s.run(machine, "sed -i 's/^metadata=.*/metadata="+metadata+"/' /etc/fleet/fleet.conf && systemctl restart fleet")
	ts.Check(err)
}

func lose(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lose ADDRESS")
	}
	ts.Check(lab.Kill(context.Background(), named(ts, args[0])))
}

func regain(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: regain ADDRESS")
	}
	ts.Check(lab.Boot(context.Background(), named(ts, args[0])))
}

// What talks about machines have shown: a file of testdata/talks/machines for each, on
// machines of its own that have nothing but the package.
func TestTalksMachines(t *testing.T) {
	deb := buildPackage(t)
	files, err := filepath.Glob("testdata/talks/machines/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		n := 1
		if name == "M01" {
			n = 3
		}
		t.Run(name, func(t *testing.T) {
			blankLab(t, n, deb)
			playFiles(t, func() {}, file)
		})
	}
}

func token(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: token N")
	}
	members, err := strconv.Atoi(args[0])
	ts.Check(err)
	url, stop, err := newToken(ts.MkAbs("."), members)
	ts.Check(err)
	ts.Defer(stop)
	ts.Setenv("DISCOVERY", url)
}

func boot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: boot ADDRESS FILE")
	}
	machine := named(ts, args[0])
	text := strings.ReplaceAll(ts.ReadFile(args[1]), "DISCOVERY", ts.Getenv("DISCOVERY"))
	ts.Check(lab.WriteFile(machine, userData, []byte(text), 0o600))
	ts.Check(lab.Reboot(context.Background(), machine))
}

func reboot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: reboot ADDRESS")
	}
	ts.Check(lab.Reboot(context.Background(), named(ts, args[0])))
}

// Every row of the talks has its script.
func TestTalksAreWhole(t *testing.T) {
	want := []string{"machines/E08", "machines/M01", "machines/M02", "machines/M03", "machines/M04"}
	for i := range 18 {
		want = append(want, fmt.Sprintf("F%02d", i+1))
	}
	for _, name := range want {
		if _, err := os.Stat("testdata/talks/" + name + ".txtar"); err != nil {
			t.Error(err)
		}
	}
}
