package etcdctl

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// classicScript is commands that both programs have to answer with the same words.
// Their listings are sorted, since the classic one leaves the order open.
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
-o xml get /c/q
set / x
rm /
get /
set /c/empty ""
get /c/empty
set "/c/a b?c#d%e" "x y"
get "/c//a b?c#d%e/"
mk --in-order /c/in 1
member list
cluster-health
--debug set /c/q v
`

var (
	indexes = regexp.MustCompile(`(Index"?: ?|\[|!= |expiration":")[0-9][^ ",}\]\n]*`)
	hints   = regexp.MustCompile(`(?m)^hint: .*\n`)
)

// normal leaves out what two runs of one program differ in, and our hints.
func normal(s string) string {
	return hints.ReplaceAllString(indexes.ReplaceAllString(s, "${1}N"), "")
}

// The classic client against our member, and ours against it: same output, same
// exit code.
func TestLikeTheClassicClient(t *testing.T) {
	classic, err := exec.LookPath("etcdctl")
	if err != nil {
		t.Skip("no etcdctl of the distribution here (package etcd-client)")
	}
	if out, _ := exec.Command(classic, "--version").CombinedOutput(); !strings.Contains(string(out), "etcdctl version") {
		t.Skipf("%s is not etcdctl: %s", classic, out)
	}
	theirURL, ourURL := startMember(t), startMember(t)
	for line := range strings.Lines(strings.TrimSpace(classicScript)) {
		args := words(strings.TrimSpace(line))
		theirs := runClassic(classic, theirURL, args)
		ours := runOurs(t, ourURL, args)
		if diff := cmp.Diff(theirs.same(theirURL), ours.same(ourURL)); diff != "" {
			t.Errorf("etcdctl %s: theirs -, ours +\n%s", strings.TrimSpace(line), diff)
		}
	}
}

type result struct {
	Out, Err string
	Code     int
}

var memberID = regexp.MustCompile(`[0-9a-f]{15,16}|http://127\.0\.0\.1:[0-9]+`)

func (r result) same(url string) result {
	fix := func(s string) string {
		return memberID.ReplaceAllString(normal(strings.ReplaceAll(s, url, "URL")), "ID")
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
