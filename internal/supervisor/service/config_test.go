package service

import (
	"slices"
	"strings"
	"testing"

	"flotilla/internal/unitfile"
)

// Every file of refused lines says which problems it must get.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"[Service]\nType=simple\n", "a.service: no ExecStart=: only Type=oneshot can do without"},
		{"[Service]\nExecStart=/a\nExecStart=/b\n", "a.service: line 3: ExecStart= appears more than once: only Type=oneshot can have that"},
		{"[Service]\nType=dbus\nExecStart=/a\n", "a.service: line 2: Type= dbus needs systemd: the supervisor cannot do it"},
		{"[Service]\nType=oneshot\nRestart=always\nExecStart=/a\n", "a.service: Restart=always does not go with Type=oneshot"},
		{"[Service]\nExecStart=a/b\n", "a.service: line 2: ExecStart= a/b is neither an absolute path nor a bare name\na.service: neither ExecStart= nor ExecStop=: there is nothing to run"},
		{"[Service]\nExecStart=+!/a\n", "a.service: line 2: ExecStart= only one of the prefixes '+', '!' and '!!' can be used\na.service: neither ExecStart= nor ExecStop=: there is nothing to run"},
		{"[Service]\nExecStart=/a\nKillSignal=SIGFOO\n", `a.service: line 3: KillSignal= "SIGFOO" is no signal`},
		{"[Service]\nExecStart=/a\nLimitNOFILE=20:10\n", "a.service: line 3: LimitNOFILE= the soft limit 20 is above the hard limit 10"},
		{"[Service]\nExecStart=/a\nStandardOutput=tty\n", `a.service: line 3: StandardOutput= "tty" is none of journal, inherit, null, file:PATH, append:PATH, truncate:PATH`},
		{"[Service]\nExecStart=/a\n[Timer]\nOnCalendar=daily\n", "a.service: line 4: OnCalendar= is in section [Timer], which the supervisor does not know"},
		{"[Service]\nExecStart=/a\nStartLimitIntervalSec=1\n[Unit]\nRestart=always\nWantedBy=b.target\n",
			"a.service: line 3: StartLimitIntervalSec= belongs in [Unit], not in [Service]\n" +
				"a.service: line 5: Restart= belongs in [Service], not in [Unit]\n" +
				"a.service: line 6: WantedBy= belongs in [Install], not in [Unit]"},
		{"[Service]\nExecStrat=/a\nExecStart=/a\nFrobnicate=yes\n",
			"a.service: line 2: ExecStrat= is no directive of [Service] that the supervisor knows; did you mean ExecStart=?\n" +
				"a.service: line 4: Frobnicate= is no directive of [Service] that the supervisor knows"},
		{"[Unit]\nCollectMode=always\n[Service]\nExecStart=/a\n", `a.service: line 2: CollectMode= "always" is none of inactive, inactive-or-failed`},
		{"[Service]\nExecStart=/a\n#### 50-limit.conf\n[Service]\nMemoryMax=1G\nNonsense=1\n#### 60-b.conf\n[Service]\nExecStart=/b\n",
			"a.service: drop-in 50-limit.conf: line 2: MemoryMax= needs systemd: the supervisor cannot do it\n" +
				"a.service: drop-in 50-limit.conf: line 3: Nonsense= is no directive of [Service] that the supervisor knows\n" +
				"a.service: drop-in 60-b.conf: line 2: ExecStart= appears more than once: only Type=oneshot can have that"},
		{"[Unit]\nAfter=no good\n[Service]\nExecStart=/a\n", `a.service: line 2: After= "no": unit name must contain "."`},
	} {
		f, err := unitfile.ParseBundle(c.text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Compile("a.service", f, func(byte) (string, bool) { return "", false })
		if err == nil || err.Error() != c.want {
			t.Errorf("%q:\ngot  %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestArgv(t *testing.T) {
	env := []string{"ONE=one", "TWO=two words 'and quoted'", "EMPTY=", "ONE=last"}
	for _, c := range []struct{ line, want string }{
		{`/bin/echo $ONE ${TWO} $TWO`, `/bin/echo|last|two words 'and quoted'|two|words|and quoted`},
		{`/bin/echo pre${ONE}post $ONE.x $$ONE $${ONE}`, `/bin/echo|prelastpost|$ONE|${ONE}`},
		{`/bin/echo $EMPTY "$EMPTY" ${EMPTY} ${UNSET} $UNSET`, `/bin/echo||`},
		{`:/bin/echo $ONE $$`, `/bin/echo|$ONE|$$`},
		{`@/bin/sh name ${ONE}`, `name|last`},
		{`-/bin/false ${bad name} $`, `/bin/false|${bad|name}`},
	} {
		cmds, err := parseCommands(c.line, 1, func(s string) string { return s })
		if err != nil || len(cmds) != 1 {
			t.Errorf("%s: %v, %v", c.line, cmds, err)
			continue
		}
		if argv, _ := cmds[0].Argv(env); strings.Join(argv, "|") != c.want {
			t.Errorf("%s: got %s, want %s", c.line, strings.Join(argv, "|"), c.want)
		}
	}
	cmds, _ := parseCommands("/bin/echo $A ${B} $A", 1, func(s string) string { return s })
	if _, unset := cmds[0].Argv(nil); !slices.Equal(unset, []string{"A", "B"}) {
		t.Errorf("unset: %q", unset)
	}
}

func TestSeveralCommandsInALine(t *testing.T) {
	cmds, err := parseCommands(`/bin/echo a ; -/bin/echo ";" \; b ;`, 1, func(s string) string { return s })
	if err != nil || len(cmds) != 2 || cmds[0].String() != "/bin/echo a" || cmds[1].String() != "/bin/echo ; ; b" || !cmds[1].IgnoreFailure {
		t.Errorf("got %+v, %v", cmds, err)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add("[Service]\nExecStart=-@/bin/sh x -c 'a' ; /bin/b $C\nRestart=always\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := unitfile.ParseBundle(text)
		if err != nil {
			return
		}
		cfg, err := Compile("a.service", file, func(byte) (string, bool) { return "", false })
		if err != nil {
			return
		}
		for _, c := range slices.Concat(cfg.ExecStart, cfg.ExecStartPre, cfg.ExecStop) {
			if c.Path == "" || len(c.Args) == 0 {
				t.Errorf("%q gave the command %+v", text, c)
			}
			c.Argv(nil)
		}
	})
}
