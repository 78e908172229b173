package bootstrap

import (
	"fmt"
	"net/url"
	"path"
	"strings"

	"flotilla/internal/fault"
)

// tokenDigits is how many hexadecimal digits the tokens of discovery services have.
const tokenDigits = 32

// CheckSpelling says what is wrong with a discovery URL that does not end as those of
// discovery services do: in 32 hexadecimal digits. nil means that nothing is, or that
// the token is a directory of a key space (/v2/keys/...), which may be called anything.
func CheckSpelling(rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return fmt.Errorf("discovery URL: %w", err)
	}
	wrong := misspelt(path.Base(u.Path))
	if wrong == "" || strings.Contains(u.Path, "/v2/keys/") {
		return nil
	}
	base := url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(path.Dir(strings.TrimRight(u.Path, "/")), "/")}
	err = fmt.Errorf("discovery URL %s: %s", rawURL, wrong)
	err = fault.Hint(err, "to ask for a new one, which all members have to have: flotilla discovery new --size N --url %s", base.String())
	return fault.Hint(err, "compare it with the URL that 'flotilla discovery new' printed, and with the one that the other members have")
}

// misspelt is what is wrong with a token, "" for nothing.
func misspelt(token string) string {
	digits := strings.ReplaceAll(token, "-", "")
	hex := strings.Trim(strings.ToLower(digits), "0123456789abcdef") == ""
	switch {
	case hex && len(digits) == tokenDigits:
		return ""
	case hex && len(digits) > tokenDigits/2:
		return fmt.Sprintf("its token has %d hexadecimal digits, and not %d", len(digits), tokenDigits)
	}
	return fmt.Sprintf("%q is no token of a discovery service: those are %d hexadecimal digits", token, tokenDigits)
}
