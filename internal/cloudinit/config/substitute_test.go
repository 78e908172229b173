package config

import (
	"strings"
	"testing"
)

func TestSubstitute(t *testing.T) {
	vars := Vars{"private_ipv4": "10.0.0.1", "public_ipv4": "192.0.2.1", "public_ipv6": ""}
	for _, c := range []struct{ text, want, findings string }{
		{"", "", ""},
		{"addr: $private_ipv4:4001", "addr: 10.0.0.1:4001", ""},
		{"$private_ipv4$public_ipv4", "10.0.0.1192.0.2.1", ""},
		{"$private_ipv4x", "10.0.0.1x", ""},
		{`\$private_ipv4`, "$private_ipv4", ""},
		{`\\$private_ipv4`, `\$private_ipv4`, ""},
		{`\$private_ip4 \$ \`, `\$private_ip4 \$ \`, ""},
		{"${private_ipv4} $private_ip4 $$ $", "${private_ipv4} $private_ip4 $$ $", ""},
		{"# $private_ipv4", "# 10.0.0.1", ""},
		{"a: 1\r\né: $private_ipv6\n", "a: 1\r\né: $private_ipv6\n",
			"line 2:4: error: $private_ipv6 has no value: neither the data source nor COREOS_PRIVATE_IPV6 in the environment gives one"},
		{"http://$public_ipv6:80", "http://$public_ipv6:80",
			"line 1:8: error: $public_ipv6 has no value: neither the data source nor COREOS_PUBLIC_IPV6 in the environment gives one"},
		{"  # $private_ipv6", "  # $private_ipv6", ""},
		{`\$private_ipv6`, "$private_ipv6", ""},
	} {
		got, findings := Substitute(c.text, vars)
		if said := strings.TrimSuffix(complaints(findings), "\n"); got != c.want || said != c.findings {
			t.Errorf("Substitute(%q) = %q, %q; want %q, %q", c.text, got, said, c.want, c.findings)
		}
	}
}

// What is replaced is not looked at again, and what has no dollar sign stays.
func FuzzSubstitute(f *testing.F) {
	for _, s := range []string{"a: $private_ipv4", `\\$public_ipv4$$private_ipv6x`, "# $public_ipv6\n\xff$public_ipv6"} {
		f.Add(s, "$private_ipv4")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		got, findings := Substitute(text, Vars{"private_ipv4": value, "public_ipv4": value})
		if !strings.Contains(text, "$") && (got != text || len(findings) > 0) {
			t.Errorf("%q became %q", text, got)
		}
		lines := strings.Count(text, "\n") + 1
		for _, f := range findings {
			if f.Line < 1 || f.Line > lines || f.Column < 1 || f.Severity != Error {
				t.Errorf("%q: %+v", text, f)
			}
		}
		twice, _ := Substitute(strings.ReplaceAll(text, "\\", ""), Vars{})
		if want := strings.ReplaceAll(text, "\\", ""); twice != want {
			t.Errorf("without values %q became %q", want, twice)
		}
	})
}
