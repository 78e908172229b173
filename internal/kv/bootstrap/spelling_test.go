package bootstrap

import (
	"strings"
	"testing"

	"flotilla/internal/fault"
)

func TestCheckSpelling(t *testing.T) {
	const token = "b1528e1bc02f4e1a9c1a5e4f6f0a2d37"
	for _, test := range []struct{ name, url, want string }{
		{"ours", "http://10.0.0.1:8087/" + token, ""},
		{"with a slash behind it", "http://10.0.0.1:8087/" + token + "/", ""},
		{"in capitals", "http://10.0.0.1:8087/" + strings.ToUpper(token), ""},
		{"the public service", "https://discovery.etcd.io/" + token, ""},
		{"a directory of a key space", "http://10.0.0.1:2379/v2/keys/discovery/ours", ""},
		{"one digit short", "http://10.0.0.1:8087/" + token[1:], "its token has 31 hexadecimal digits, and not 32 | --url http://10.0.0.1:8087"},
		{"a slash behind it", "http://h/" + token + "0/", "its token has 33 hexadecimal digits, and not 32 | --url http://h"},
		{"a word", "http://10.0.0.1:8087/abc", `"abc" is no token of a discovery service: those are 32 hexadecimal digits | --url http://10.0.0.1:8087`},
		{"a letter that is no digit", "http://10.0.0.1:8087/" + token[1:] + "g", `37g" is no token`},
		{"below a path", "https://h/discovery/" + token[2:], "has 30 hexadecimal digits, and not 32 | --url https://h/discovery"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := CheckSpelling(test.url)
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			want, command, _ := strings.Cut(test.want, " | ")
			if !strings.Contains(err.Error(), test.url) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v\nwant %s", err, want)
			}
			if hints := strings.Join(fault.Hints(err), "\n"); !strings.HasSuffix(hints, command) || strings.Contains(hints, "plain") {
				t.Errorf("hints\n%s\nwant %s", hints, command)
			}
		})
	}
}
