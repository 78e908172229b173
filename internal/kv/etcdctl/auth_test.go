package etcdctl

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/internal/kv/member/membertest"

	"github.com/google/go-cmp/cmp"
)

// authScript is commands about users and roles that both programs have to answer
// with the same words, but for a line with "~", where ours is better on purpose.
const authScript = `
auth enable
auth disable
auth bogus
auth enable extra
user list
user add
user add root:rpw
user add root:rpw2
user add alice:apw
user add alice:apw extra
user add bob:
user get
user get alice
user get nobody
~user get root
user get alice extra
user list extra
user remove nobody
user remove
user grant alice
user grant --roles rkt alice
user grant --roles rkt alice
user grant --roles c --roles d alice
user grant alice --roles e
user grant --roles x nobody
user grant --roles rkt
user get alice
user revoke --roles nope alice
user revoke --roles c --roles d --roles e alice
user revoke alice
role add
role add rkt
role add rkt
role add root
role add rkt extra
role get rkt
role get nope
role get
role get root
role list
role list extra
role remove nope
role remove
role grant
role grant rkt
role grant rkt --path /rkt/x
role grant rkt --path /rkt/x --read --write
role grant rkt --path rkt --read
role grant rkt --path rkt
role grant --path /rkt/x --read
role grant rkt --path /rkt/* --readwrite
role grant rkt --path /rkt/* --rw
role grant rkt --path /a/ --read
role grant rkt --path /a//b --read
role grant rkt --path / --read
role grant rkt --path * --read
role grant rkt --path /q -read
role get rkt
role revoke rkt --path /q --read
role revoke rkt --path /q --read
role revoke rkt --path /nope --rw
role grant nope --path /x --read
role revoke nope --path /x --read
role grant root --path /x --read
role remove root
~user get alice
auth enable
auth enable
user list
role list
role get rkt
user get alice
role add x
user add y:z
user remove y
role remove x
auth disable
set /k v
-u root:wrong user list
-u root:wrong role list
-u root:rpw2 user list
-u root:rpw2 role list
-u root:rpw2 user remove root
-u root:rpw2 role get guest
-u alice:apw set /k v
-u alice:apw set /rkt/k v
-u alice:apw get /rkt/k
-u alice:apw auth disable
-u root:rpw2 role revoke guest --path /* --readwrite
get /k
ls
-o json -u root:rpw2 user list
-u root:rpw2 user grant --roles root alice
-u alice:apw set /k v
-u alice:apw user revoke --roles root alice
-u root:rpw2 user remove alice
-u root:rpw2 role remove rkt
-u root:rpw2 auth disable
auth disable
`

// The classic client against our member, and ours against another, as users, roles
// and passwords come and go.
func TestAuthLikeTheClassicClient(t *testing.T) {
	classic := packagedClient(t)
	theirURL, ourURL := membertest.Start(t), membertest.Start(t)
	for line := range strings.Lines(strings.TrimSpace(authScript)) {
		line, better := strings.CutPrefix(strings.TrimSpace(line), "~")
		theirs := runClassic(classic, theirURL, words(line)).same(theirURL)
		ours := runOurs(t, ourURL, words(line)).same(ourURL)
		if better {
			theirs.Out = strings.ReplaceAll(theirs.Out, "Roles:  ", "Roles: ")
			theirs.Out = strings.ReplaceAll(theirs.Out, "  ", " ")
		}
		if diff := cmp.Diff(theirs, ours); diff != "" {
			t.Errorf("etcdctl %s: theirs -, ours +\n%s", line, diff)
		}
	}
}

// packagedClient is the distribution's etcdctl: ours, under the same name, comes
// first in the PATH of tests.
func packagedClient(t *testing.T) string {
	t.Helper()
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, "etcdctl")
		cmd := exec.Command(path, "--version")
		cmd.Env = append(os.Environ(), "ETCDCTL_API=2")
		if out, err := cmd.Output(); err == nil && strings.Contains(string(out), "etcdctl version: 3.4.") {
			return path
		}
	}
	t.Fatal("no etcdctl 3.4, the last that speaks v2 (scripts/need etcdctl:etcd-client installs it)")
	return ""
}

// What is better than it was: lists with commas, passwords asked for without a word
// on stdout.
func TestUsersBetter(t *testing.T) {
	url := membertest.Start(t)
	run := func(stdin string, args ...string) result {
		env, out, errs := quietEnv(t, args...)
		env.Stdin = strings.NewReader(stdin)
		env.LookupEnv = func(k string) (string, bool) {
			return map[string]string{"ETCDCTL_ENDPOINTS": url}[k], k == "ETCDCTL_ENDPOINTS"
		}
		code := Applet().Run(t.Context(), env)
		return result{out.String(), errs.String(), code}
	}
	for _, c := range []struct {
		stdin, line string
		want        result
	}{
		{"secret\n", "user add root", result{"User root created\n", "New password: \n", 0}},
		{"more\n", "user passwd root", result{"Password updated\n", "New password: \n", 0}},
		{"", "user passwd root", result{"", "New password: \nread the password: EOF\n", 1}},
		{"", "user add :x", result{"", "Please provide a username\n", 1}},
		{"", "user add alice:a", result{"User alice created\n", "", 0}},
		{"", "role add a", result{"Role a created\n", "", 0}},
		{"", "role add b", result{"Role b created\n", "", 0}},
		{"", "user grant --roles a,b alice", result{"User alice updated\n", "", 0}},
		{"", "user get alice", result{"User: alice\nRoles: a b\n", "", 0}},
		{"", "auth enable", result{"Authentication Enabled\n", "", 0}},
		{"", "role list", result{"", "unexpected status code 401\nhint: Insufficient credentials: say who you are with --username\n", 1}},
		{"more\n", "-u root user list", result{"alice\nroot\n", "Password: \n", 0}},
		{"more\nbobs\n", "-u root user add bob", result{"User bob created\n", "Password: \nNew password: \n", 0}},
		{"secret\n", "-u root user list", result{"", "Password: \nInsufficient credentials\n", 1}},
	} {
		if diff := cmp.Diff(c.want, run(c.stdin, words(c.line)...)); diff != "" {
			t.Errorf("etcdctl %s: want -, got +\n%s", c.line, diff)
		}
	}
}

// TestBackupAsUser: where users count, a backup is for who has the role root, and says
// to others why not.
func TestBackupAsUser(t *testing.T) {
	url, dir := membertest.Start(t), t.TempDir()
	for _, line := range []string{"user add root:secret", "user add alice:a", "set /k v", "auth enable"} {
		if r := runOurs(t, url, words(line)); r.Code != 0 {
			t.Fatalf("etcdctl %s: %+v", line, r)
		}
	}
	for _, c := range []struct {
		who, hint string
		code      int
	}{
		{"", "hint: say who you are with --username", 1},
		{"-u alice:a ", "hint: a backup is for users with the role root", 1},
		{"-u root:wrong ", "invalid user ID or password", 1},
		{"--username root:secret ", "", 0},
	} {
		to := filepath.Join(dir, "b"+strings.Trim(c.who, "- "))
		r := runOurs(t, url, append(words(c.who+"backup --backup-dir"), to))
		if _, err := os.Stat(to); r.Code != c.code || !strings.Contains(r.Err, c.hint) || (err == nil) != (c.code == 0) {
			t.Errorf("%sbackup: %+v, %v", c.who, r, err)
		}
	}
}
