package etcdctl

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/client/keys"
	"flotilla/internal/kv/member/membertest"
)

// classicScript is commands that both programs have to answer with the same words.
// Their listings are sorted, since the classic one leaves the order open. Both also
// tell what they send (--debug), but for lines with a "!": there ours asks fewer
// questions, or the classic one takes the endpoints in any order.
const classicScript = `
set /c/foo "Hello world"
get /c/foo
set /c/foo/below x
set /c/d/bar v --ttl 60
update /c/d/bar w
update /c/missing dingo
rm /c/d/bar
rm /c/d
rm /c/d --recursive
mk /c/a/b/c 1
mk /c/a/b/c 1
mk /c/zz
ls --sort /c
ls --sort --recursive -p /c
ls /c/foo
ls /c/nope
mkdir /c/dir
mkdir /c/dir
setdir /c/dir
updatedir /c/dir --ttl 50
updatedir /c/nodir
rmdir /c/dir
rmdir /c/a
rm /c/a
get /c/a
-o extended get /c/foo
-o json get /c/foo
-o extended set /c/foo 2
-o json set /c/foo 3
-o json ls --sort /c
-o extended ls /c
-o extended rm /c/foo
-o extended mkdir /c/x
-o json rmdir /c/x
set /c/cas 1
set /c/cas 2 --swap-with-value 0
set /c/cas 2 --swap-with-value 1
rm /c/cas --with-value 9
rm /c/cas --with-value 2
set /c/q -val
set -- /c/q -val
set /c/q
set
get
watch
exec-watch /c/q
!-o xml get /c/q
set / x
rm /
get /
set /c/empty ""
get /c/empty
set "/c/a b?c#d%e" "x y"
get "/c//a b?c#d%e"
mk --in-order /c/in 1
ls
update /c/foo
mk /c/foo --ttl 5
mk --ttl 7 /c/ttl 1
-o extended set /c/zero 1 --ttl 0
set /c/neg 1 --ttl -5
get --sort /c/zero
get --quorum /c/zero
ls -q --sort /c
ls --sort -r /c
rm --with-index 1 /c/zero
set /c/zero 2 --swap-with-index 1
rm -r /c/a
rm --dir /c/x
mk --in-order /c/in 2
-o json get /c/nope
watch --after-index 1 /c/foo
watch -r --after-index 1 /c
-o json watch --after-index 1 /c/foo
-o extended watch -r --after-index 1 /c
exec-watch -r
exec-watch
--no-sync get /c/zero
--endpoints URL get /c/zero
--endpoint URL get /c/zero
--peers URL get /c/zero
-C URL get /c/zero
-u name:pw get /c/zero
--timeout 1s --total-timeout 2s get /c/zero
--endpoints http://127.0.0.1:1 get /c/zero
--no-sync --endpoints http://127.0.0.1:1 get /c/zero
!--no-sync --endpoints http://127.0.0.1:1,URL get /c/zero
!--endpoints http://127.0.0.1:1,URL get /c/zero
--endpoints http://127.0.0.1:1 cluster-health
--endpoints http://127.0.0.1:1 member list
help nothing
bogus
member bogus
member list
member list extra
member add
member add n2
!member add n2 bogus
member add n2 PEER
member remove
member remove n1
member remove abc
member update
member update SELF
!member update SELF bogus
member update abc http://127.0.0.1:9
member update xyz http://127.0.0.1:9
member update SELF PEER
!cluster-health
member add n2 http://127.0.0.1:9
`

var (
	indexes = regexp.MustCompile(`(Index"?: ?|\[|!= |expiration":")[0-9][^ ",}\]\n]*`)
	hints   = regexp.MustCompile(`(?m)^(hint:|For more details,) .*\n`)
)

// normal leaves out what two runs of one program differ in, our hints, and where
// the classic program's documentation was.
func normal(s string) string {
	return hints.ReplaceAllString(indexes.ReplaceAllString(s, "${1}N"), "")
}

// The classic client against our member, and ours against it: same output, same
// exit code.
func TestLikeTheClassicClient(t *testing.T) {
	classic := classicClient(t)
	theirURL, ourURL := membertest.Start(t), membertest.Start(t)
	theirSelf, ourSelf := self(t, theirURL), self(t, ourURL)
	for line := range strings.Lines(strings.TrimSpace(classicScript)) {
		line = strings.TrimSpace(line)
		theirs := runClassic(classic, theirURL, words(fill(line, theirURL, theirSelf)))
		ours := runOurs(t, ourURL, words(fill(line, ourURL, ourSelf)))
		if diff := cmp.Diff(theirs.same(theirURL), ours.same(ourURL)); diff != "" {
			t.Errorf("etcdctl %s: theirs -, ours +\n%s", line, diff)
		}
	}
}

// classicClient is the etcdctl that the distribution packages. Ours, under the same
// name, comes first in the PATH of tests.
func classicClient(t *testing.T) string {
	t.Helper()
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, "etcdctl")
		cmd := exec.Command(path, "--version")
		cmd.Env = append(os.Environ(), "ETCDCTL_API=2")
		out, err := cmd.Output()
		if err == nil && strings.Contains(string(out), "etcdctl version: 3.4.") {
			return path
		}
	}
	t.Fatal("no etcdctl 3.4, the last that speaks v2 (scripts/need etcdctl:etcd-client installs it)")
	return ""
}

// self is the only member of the store at url.
func self(t *testing.T, url string) keys.Member {
	t.Helper()
	c, err := keys.New(keys.Config{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	members, err := c.Members(t.Context())
	if err != nil || len(members) != 1 {
		t.Fatalf("members: %v, %v", members, err)
	}
	return members[0]
}

// fill puts a store's own address and its member into a command, and asks for the
// requests that it sends.
func fill(line, url string, m keys.Member) string {
	line, untold := strings.CutPrefix(line, "!")
	if !untold {
		line = "--debug " + line
	}
	return strings.NewReplacer("URL", url, "SELF", m.ID, "PEER", m.PeerURLs[0]).Replace(line)
}

type result struct {
	Out, Err string
	Code     int
}

var memberID = regexp.MustCompile(`[0-9a-f]{15,16}|http://127\.0\.0\.1:[0-9]+`)

// founders is a list of members in the order of their ids, which are chance.
var founders = regexp.MustCompile(`ETCD_INITIAL_CLUSTER="[^"]*"`)

func inOrder(list string) string {
	name, value, _ := strings.Cut(list, "=")
	entries := strings.Split(strings.Trim(value, `"`), ",")
	slices.Sort(entries)
	return name + "=" + strings.Join(entries, ",")
}

func (r result) same(url string) result {
	fix := func(s string) string {
		s = memberID.ReplaceAllString(normal(strings.ReplaceAll(s, url, "URL")), "ID")
		return founders.ReplaceAllStringFunc(s, inOrder)
	}
	return result{fix(r.Out), fix(r.Err), r.Code}
}

func runClassic(path, url string, args []string) result {
	var out, errs bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=2", "ETCDCTL_ENDPOINTS="+url)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func runOurs(t *testing.T, url string, args []string) result {
	env, out, errs := quietEnv(t, args...)
	env.LookupEnv = func(k string) (string, bool) {
		return map[string]string{"ETCDCTL_ENDPOINTS": url}[k], k == "ETCDCTL_ENDPOINTS"
	}
	code := Applet().Run(t.Context(), env)
	return result{out.String(), errs.String(), code}
}

// words splits a line at blanks that are not within double quotes.
func words(line string) []string {
	var out []string
	for _, w := range regexp.MustCompile(`"[^"]*"|[^ ]+`).FindAllString(line, -1) {
		out = append(out, strings.Trim(w, `"`))
	}
	return out
}
