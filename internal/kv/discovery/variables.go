package discovery

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
)

// The two flags that say where tokens are kept.
const (
	dirFlag   = "data-dir"
	storeFlag = "endpoints"
)

// variables sets what the command line left open from DISCOVERY_LISTEN, DISCOVERY_DATA_DIR
// and so on. An empty variable counts as unset. Who names one place for the tokens on the
// command line has no other by a variable; who names none has the state directory of the
// systemd unit that this is (systemd.exec(5)), if it has one.
func variables(fs *pflag.FlagSet, env applet.Env) error {
	placed := fs.Changed(dirFlag) || fs.Changed(storeFlag)
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		name := "DISCOVERY_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := env.Getenv(name)
		switch {
		case value == "" || f.Changed || f.Name == "help":
		case placed && (f.Name == dirFlag || f.Name == storeFlag):
		default:
			if err := fs.Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("variable %s: %w", name, err))
			}
		}
	})
	if fs.Changed(dirFlag) && fs.Changed(storeFlag) {
		errs = append(errs, fmt.Errorf("--%s and --%s, or their variables: tokens are kept in one place only", storeFlag, dirFlag))
	}
	if state, _, _ := strings.Cut(env.Getenv("STATE_DIRECTORY"), ":"); state != "" && !fs.Changed(dirFlag) {
		errs = append(errs, fs.Lookup(dirFlag).Value.Set(state))
	}
	return fault.Code(fault.ExitUsage, errors.Join(errs...))
}
