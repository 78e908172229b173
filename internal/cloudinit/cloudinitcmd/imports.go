package cloudinitcmd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"flotilla/internal/cloudinit/plan"
	"flotilla/internal/cloudinit/source"
)

// importTries is how often a list of keys is asked for: a run does not wait long for
// what it can do without.
const importTries = 3

// importKeys fetches the public keys that users of the document are to have from
// elsewhere. A list that cannot be fetched leaves the user the keys that it has.
func (p *program) importKeys(ctx context.Context, in *input) {
	fetch := source.Fetcher{Proxied: true, Tries: importTries, Limit: 1 << 20}
	add := func(user, set, from string) {
		if !fileName.MatchString(set) {
			in.errs = append(in.errs, fmt.Errorf("keys for %s: %q is no name of a set of keys", user, set))
			return
		}
		keys, err := fetchKeys(ctx, fetch, from)
		if err != nil {
			in.errs = append(in.errs, fmt.Errorf("keys for %s: %w", user, err))
			return
		}
		in.want.Imported = append(in.want.Imported, plan.ImportedKeys{User: user, Set: set, Keys: keys})
	}
	for _, u := range in.want.Document.Users {
		for _, name := range u.GithubUsers {
			add(u.Name, "github-"+name, fmt.Sprintf(p.githubKeys, url.PathEscape(name)))
		}
		if u.KeysURL != "" {
			add(u.Name, plan.DefaultKeySet+"-"+u.Name, u.KeysURL)
		}
	}
}

// fetchKeys reads a list of keys: JSON as GitHub's API has it, or one key a line.
func fetchKeys(ctx context.Context, f source.Fetcher, from string) ([]string, error) {
	body, err := f.Get(ctx, from, nil)
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(string(body))
	if !strings.HasPrefix(text, "[") {
		return strings.Split(text, "\n"), nil
	}
	var list []struct {
		Key string `json:"key"`
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("list of keys from %s: %w", from, err)
	}
	var keys []string
	for _, k := range list {
		keys = append(keys, k.Key)
	}
	return keys, nil
}
