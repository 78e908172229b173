package service

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/fault"
	"flotilla/internal/unitfile"
)

// compiler fills a Config from a file, option by option, and goes on after a
// problem, so that a person sees all of them.
type compiler struct {
	*Config
	lookup   func(byte) (string, bool)
	dropIn   string // the drop-in that is being read, "" for the unit file
	problems []Problem
}

func (c *compiler) problem(line int, directive, format string, args ...any) {
	c.problems = append(c.problems, Problem{DropIn: c.dropIn, Line: line, Directive: directive, Text: fmt.Sprintf(format, args...)})
}

func (c *compiler) expand(s string) string { return unitfile.Expand(s, c.lookup) }

// setter reads one option's value, specifiers not yet replaced.
type setter func(c *compiler, o unitfile.Option, value string) error

func (c *compiler) file(dropIn string, f unitfile.File) {
	c.dropIn = dropIn
	for _, o := range f.Options {
		c.option(o)
	}
}

func (c *compiler) option(o unitfile.Option) {
	name := o.Section + "." + o.Name
	value := unitfile.Unfold(o.Value)
	if strings.HasPrefix(o.Section, "X-") || strings.HasPrefix(o.Name, "X-") || noEffect[name] {
		return
	}
	set, ok := directives[name]
	if !ok {
		c.problem(o.Line, name, "%s", why(o))
		return
	}
	if c.Target && o.Section == "Service" {
		c.problem(o.Line, name, "has no meaning in a target")
		return
	}
	if err := set(c, o, value); err != nil {
		c.problem(o.Line, name, "%v", err)
	}
}

// why says why an option cannot be honoured.
func why(o unitfile.Option) string {
	switch {
	case !slices.Contains([]string{"Unit", "Service", "Install"}, o.Section):
		return fmt.Sprintf("is in section [%s], which the supervisor does not know", o.Section)
	case needsSystemd[o.Name]:
		return "needs systemd: the supervisor cannot do it"
	}
	for _, section := range []string{"Unit", "Service", "Install"} {
		if slices.Contains(known(section), o.Name) {
			return fmt.Sprintf("belongs in [%s], not in [%s]", section, o.Section)
		}
	}
	text := fmt.Sprintf("is no directive of [%s] that the supervisor knows", o.Section)
	if near := fault.Nearest(o.Name, known(o.Section)); near != "" {
		text += "; did you mean " + near + "=?"
	}
	return text
}

// known are the directives of a section that the supervisor does not refuse, in order.
func known(section string) []string {
	var out []string
	for _, name := range slices.Concat(slices.Collect(maps.Keys(directives)), slices.Collect(maps.Keys(noEffect))) {
		if name, ok := strings.CutPrefix(name, section+"."); ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// noEffect are directives that change nothing here, and why that is right:
// text for people, wiring that enable and disable use, accounting that nobody
// reads, and what systemd does at boot and shutdown, which are not our business.
var noEffect = set(
	"Unit.Documentation", "Unit.SourcePath", "Unit.DefaultDependencies", "Unit.IgnoreOnIsolate",
	"Unit.AllowIsolate",
	"Install.WantedBy", "Install.RequiredBy", "Install.Alias", "Install.Also", "Install.DefaultInstance",
	"Service.CPUAccounting", "Service.MemoryAccounting", "Service.TasksAccounting",
	"Service.IOAccounting", "Service.BlockIOAccounting", "Service.IPAccounting",
)

// needsSystemd are directives that exist and that we know we cannot do: a person
// who reads the refusal shall not look for a typing error.
var needsSystemd = set(
	"PrivateTmp", "PrivateDevices", "PrivateNetwork", "PrivateUsers", "PrivateMounts", "PrivateIPC",
	"ProtectSystem", "ProtectHome", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
	"ProtectControlGroups", "ProtectClock", "ProtectHostname", "ProtectProc", "ProcSubset",
	"ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "BindPaths", "BindReadOnlyPaths",
	"TemporaryFileSystem", "RootDirectory", "RootImage", "MountFlags",
	"NoNewPrivileges", "CapabilityBoundingSet", "AmbientCapabilities", "SecureBits",
	"SystemCallFilter", "SystemCallArchitectures", "SystemCallErrorNumber", "RestrictAddressFamilies",
	"RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute",
	"RemoveIPC", "KeyringMode", "DynamicUser", "PAMName", "Personality", "DevicePolicy", "DeviceAllow",
	"MemoryMax", "MemoryHigh", "MemoryLow", "MemoryMin", "MemoryLimit", "MemorySwapMax",
	"CPUQuota", "CPUWeight", "CPUShares", "AllowedCPUs", "TasksMax", "IOWeight", "BlockIOWeight",
	"IPAddressAllow", "IPAddressDeny", "Delegate", "Slice", "OOMPolicy",
	"Sockets", "FileDescriptorStoreMax", "BusName", "USBFunctionDescriptors", "TTYPath", "StandardInput",
	"StandardInputText", "StandardInputData", "LoadCredential", "SetCredential",
	"RuntimeDirectory", "StateDirectory", "CacheDirectory", "LogsDirectory", "ConfigurationDirectory",
	"Upholds", "PropagatesReloadTo", "ReloadPropagatedFrom", "PropagatesStopTo", "StopPropagatedFrom",
	"JoinsNamespaceOf", "RequiresMountsFor", "StopWhenUnneeded", "JobTimeoutSec", "JobRunningTimeoutSec",
	"SuccessAction", "FailureAction", "StartLimitAction", "RebootArgument", "OnFailureJobMode",
	"RootDirectoryStartOnly", "NonBlocking", "CPUSchedulingPolicy", "CPUAffinity", "IOSchedulingClass",
)

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// directives is what we honour.
var directives = map[string]setter{
	"Unit.Description": text(func(c *Config) *string { return &c.Description }),
	"Unit.Requires":    names(func(c *Config) *[]string { return &c.Requires }),
	"Unit.Requisite":   names(func(c *Config) *[]string { return &c.Requisite }),
	"Unit.Wants":       names(func(c *Config) *[]string { return &c.Wants }),
	"Unit.BindsTo":     names(func(c *Config) *[]string { return &c.BindsTo }),
	"Unit.PartOf":      names(func(c *Config) *[]string { return &c.PartOf }),
	"Unit.Conflicts":   names(func(c *Config) *[]string { return &c.Conflicts }),
	"Unit.After":       names(func(c *Config) *[]string { return &c.After }),
	"Unit.Before":      names(func(c *Config) *[]string { return &c.Before }),
	"Unit.OnFailure":   names(func(c *Config) *[]string { return &c.OnFailure }),
	"Unit.OnSuccess":   names(func(c *Config) *[]string { return &c.OnSuccess }),

	"Unit.StartLimitIntervalSec": span(startLimit, keepZero),
	"Unit.StartLimitInterval":    span(startLimit, keepZero),
	"Service.StartLimitInterval": span(startLimit, keepZero),
	"Unit.StartLimitBurst":       number(startBurst, 0, 1<<31-1),
	"Service.StartLimitBurst":    number(startBurst, 0, 1<<31-1),
	"Unit.CollectMode":           collectMode,
	"Unit.ConditionPathExists":   condition, "Unit.AssertPathExists": condition,
	"Unit.ConditionPathExistsGlob": condition, "Unit.AssertPathExistsGlob": condition,
	"Unit.ConditionPathIsDirectory": condition, "Unit.AssertPathIsDirectory": condition,
	"Unit.ConditionPathIsSymbolicLink": condition, "Unit.AssertPathIsSymbolicLink": condition,
	"Unit.ConditionDirectoryNotEmpty": condition, "Unit.AssertDirectoryNotEmpty": condition,
	"Unit.ConditionFileNotEmpty": condition, "Unit.AssertFileNotEmpty": condition,
	"Unit.ConditionFileIsExecutable": condition, "Unit.AssertFileIsExecutable": condition,

	"Service.Type":            serviceType,
	"Service.RemainAfterExit": boolean(func(c *Config) *bool { return &c.RemainAfterExit }),
	"Service.GuessMainPID":    boolean(func(c *Config) *bool { return &c.GuessMainPID }),
	"Service.PIDFile":         pidFile,
	"Service.NotifyAccess":    oneOf(func(c *Config) *string { return &c.NotifyAccess }, NotifyNone, NotifyMain, NotifyExec, NotifyAll),
	"Service.ExecCondition":   exec(func(c *Config) *[]Command { return &c.ExecCondition }),
	"Service.ExecStartPre":    exec(func(c *Config) *[]Command { return &c.ExecStartPre }),
	"Service.ExecStart":       exec(func(c *Config) *[]Command { return &c.ExecStart }),
	"Service.ExecStartPost":   exec(func(c *Config) *[]Command { return &c.ExecStartPost }),
	"Service.ExecReload":      exec(func(c *Config) *[]Command { return &c.ExecReload }),
	"Service.ExecStop":        exec(func(c *Config) *[]Command { return &c.ExecStop }),
	"Service.ExecStopPost":    exec(func(c *Config) *[]Command { return &c.ExecStopPost }),

	"Service.Restart": oneOf(func(c *Config) *string { return &c.Restart }, RestartNo, RestartAlways, RestartOnSuccess,
		RestartOnFailure, RestartOnAbnormal, RestartOnAbort, RestartOnWatchdog),
	"Service.RestartSec":               span(func(c *Config) *time.Duration { return &c.RestartDelay }, keepZero),
	"Service.SuccessExitStatus":        exits(func(c *Config) *ExitSet { return &c.SuccessExitStatus }),
	"Service.RestartPreventExitStatus": exits(func(c *Config) *ExitSet { return &c.RestartPreventStatus }),
	"Service.RestartForceExitStatus":   exits(func(c *Config) *ExitSet { return &c.RestartForceStatus }),
	"Service.TimeoutStartSec":          span(timeoutStart, zeroIsInfinity),
	"Service.TimeoutStopSec":           span(timeoutStop, zeroIsInfinity),
	"Service.TimeoutSec":               bothTimeouts,
	"Service.TimeoutAbortSec":          span(func(c *Config) *time.Duration { return &c.TimeoutAbort }, zeroIsInfinity),
	"Service.RuntimeMaxSec":            span(func(c *Config) *time.Duration { return &c.RuntimeMax }, zeroIsInfinity),
	"Service.WatchdogSec":              span(func(c *Config) *time.Duration { return &c.Watchdog }, infinityIsZero),

	"Service.KillMode":          oneOf(func(c *Config) *string { return &c.KillMode }, KillGroup, KillMixed, KillProcess, KillNone),
	"Service.KillSignal":        signal(func(c *Config) *int { return &c.KillSignal }),
	"Service.RestartKillSignal": signal(func(c *Config) *int { return &c.RestartKillSignal }),
	"Service.FinalKillSignal":   signal(func(c *Config) *int { return &c.FinalKillSignal }),
	"Service.WatchdogSignal":    signal(func(c *Config) *int { return &c.WatchdogSignal }),
	"Service.SendSIGHUP":        boolean(func(c *Config) *bool { return &c.SendSIGHUP }),
	"Service.SendSIGKILL":       boolean(func(c *Config) *bool { return &c.SendSIGKILL }),

	"Service.User":                text(func(c *Config) *string { return &c.Context.User }),
	"Service.Group":               text(func(c *Config) *string { return &c.Context.Group }),
	"Service.SupplementaryGroups": words(func(c *Config) *[]string { return &c.Context.SupplementaryGroup }),
	"Service.WorkingDirectory":    workingDirectory,
	"Service.UMask":               umask,
	"Service.Nice":                optionalNumber(func(c *Config) **int { return &c.Context.Nice }, -20, 19),
	"Service.OOMScoreAdjust":      optionalNumber(func(c *Config) **int { return &c.Context.OOMScoreAdjust }, -1000, 1000),
	"Service.Environment":         environment,
	"Service.EnvironmentFile":     environmentFile,
	"Service.PassEnvironment":     words(func(c *Config) *[]string { return &c.Context.PassEnvironment }),
	"Service.UnsetEnvironment":    words(func(c *Config) *[]string { return &c.Context.UnsetEnvironment }),
	"Service.StandardOutput":      stream(func(c *Config) *Stream { return &c.Context.Stdout }),
	"Service.StandardError":       stream(func(c *Config) *Stream { return &c.Context.Stderr }),
	"Service.SyslogIdentifier":    text(func(c *Config) *string { return &c.Context.Ident }),
	"Service.SyslogLevel":         syslogLevel,
	"Service.SyslogLevelPrefix":   boolean(func(c *Config) *bool { return &c.Context.LevelPrefix }),

	"Service.LimitCPU": limit(0), "Service.LimitFSIZE": limit(1), "Service.LimitDATA": limit(2),
	"Service.LimitSTACK": limit(3), "Service.LimitCORE": limit(4), "Service.LimitRSS": limit(5),
	"Service.LimitNPROC": limit(6), "Service.LimitNOFILE": limit(7), "Service.LimitMEMLOCK": limit(8),
	"Service.LimitAS": limit(9), "Service.LimitLOCKS": limit(10), "Service.LimitSIGPENDING": limit(11),
	"Service.LimitMSGQUEUE": limit(12), "Service.LimitNICE": limit(13), "Service.LimitRTPRIO": limit(14),
}

func startLimit(c *Config) *time.Duration   { return &c.StartLimitInterval }
func startBurst(c *Config) *int             { return &c.StartLimitBurst }
func timeoutStart(c *Config) *time.Duration { return &c.TimeoutStart }
func timeoutStop(c *Config) *time.Duration  { return &c.TimeoutStop }

func text(field func(*Config) *string) setter {
	return func(c *compiler, _ unitfile.Option, value string) error {
		*field(c.Config) = c.expand(value)
		return nil
	}
}

// names appends unit names. systemd.unit(5): an empty value does not reset the list.
func names(field func(*Config) *[]string) setter {
	return func(c *compiler, _ unitfile.Option, value string) error {
		ws, err := unitfile.Words(value, unitfile.Verbatim)
		if err != nil {
			return err
		}
		for _, w := range ws {
			name := c.expand(w)
			if err := unitfile.CheckName(name); err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
			if list := field(c.Config); !slices.Contains(*list, name) {
				*list = append(*list, name)
			}
		}
		return nil
	}
}

func words(field func(*Config) *[]string) setter {
	return func(c *compiler, _ unitfile.Option, value string) error {
		if value == "" {
			*field(c.Config) = nil
			return nil
		}
		ws, err := unitfile.Words(value, unitfile.Lenient)
		for _, w := range ws {
			*field(c.Config) = append(*field(c.Config), c.expand(w))
		}
		return err
	}
}

func boolean(field func(*Config) *bool) setter {
	return func(c *compiler, _ unitfile.Option, value string) (err error) {
		*field(c.Config), err = unitfile.ParseBool(value)
		return err
	}
}

func keepZero(d time.Duration) time.Duration { return d }

// zeroIsInfinity is how the timeouts of services read 0.
func zeroIsInfinity(d time.Duration) time.Duration {
	if d == 0 {
		return unitfile.Infinity
	}
	return d
}

func infinityIsZero(d time.Duration) time.Duration {
	if d == unitfile.Infinity {
		return 0
	}
	return d
}

func span(field func(*Config) *time.Duration, fix func(time.Duration) time.Duration) setter {
	return func(c *compiler, _ unitfile.Option, value string) error {
		d, err := unitfile.ParseSpan(value)
		if err == nil {
			*field(c.Config) = fix(d)
		}
		return err
	}
}

func bothTimeouts(c *compiler, o unitfile.Option, value string) error {
	if err := span(timeoutStart, zeroIsInfinity)(c, o, value); err != nil {
		return err
	}
	c.TimeoutStop = c.TimeoutStart
	return nil
}

func number(field func(*Config) *int, low, high int) setter {
	return func(c *compiler, _ unitfile.Option, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < low || n > high {
			return fmt.Errorf("%q is no number from %d to %d", value, low, high)
		}
		*field(c.Config) = n
		return nil
	}
}

func optionalNumber(field func(*Config) **int, low, high int) setter {
	return func(c *compiler, o unitfile.Option, value string) error {
		n := new(int)
		err := number(func(*Config) *int { return n }, low, high)(c, o, value)
		if err == nil {
			*field(c.Config) = n
		}
		return err
	}
}

func oneOf(field func(*Config) *string, values ...string) setter {
	return func(c *compiler, _ unitfile.Option, value string) error {
		if !slices.Contains(values, value) {
			return fmt.Errorf("%q is none of %s", value, strings.Join(values, ", "))
		}
		*field(c.Config) = value
		return nil
	}
}

func signal(field func(*Config) *int) setter {
	return func(c *compiler, _ unitfile.Option, value string) error {
		n, err := unitfile.ParseSignal(value)
		if err == nil {
			*field(c.Config) = n
		}
		return err
	}
}

func collectMode(c *compiler, _ unitfile.Option, value string) error {
	modes := []string{"inactive", "inactive-or-failed"}
	if !slices.Contains(modes, value) {
		return fmt.Errorf("%q is none of %s", value, strings.Join(modes, ", "))
	}
	c.CollectFailed = value == modes[1]
	return nil
}

func serviceType(c *compiler, _ unitfile.Option, value string) error {
	switch value {
	case Simple, Exec, Oneshot, Notify, Forking:
		c.Type = value
	case idle:
		// idle only keeps the boot console tidy; there is none here.
		c.Type = Simple
	case "dbus", "notify-reload":
		return fmt.Errorf("%s needs systemd: the supervisor cannot do it", value)
	default:
		return fmt.Errorf("%q is none of simple, exec, oneshot, notify, forking, idle", value)
	}
	return nil
}

// pidFile: a relative path is below the runtime directory, as in systemd.
func pidFile(c *compiler, _ unitfile.Option, value string) error {
	p := c.expand(value)
	if p != "" && !path.IsAbs(p) {
		p = path.Join(c.expand("%t"), p)
	}
	c.PIDFile = p
	return nil
}

func exec(field func(*Config) *[]Command) setter {
	return func(c *compiler, o unitfile.Option, value string) error {
		if value == "" {
			*field(c.Config) = nil
			return nil
		}
		cmds, err := parseCommands(value, o.Line, c.expand)
		for i := range cmds {
			cmds[i].DropIn = c.dropIn
		}
		*field(c.Config) = append(*field(c.Config), cmds...)
		return err
	}
}

// exits reads exit statuses by number or name and signals by name.
func exits(field func(*Config) *ExitSet) setter {
	return func(c *compiler, _ unitfile.Option, value string) error {
		if value == "" {
			*field(c.Config) = ExitSet{}
			return nil
		}
		s := field(c.Config)
		for _, w := range strings.Fields(value) {
			if code, ok := exitByName(w); ok {
				s.Codes = append(s.Codes, code)
			} else if sig, err := unitfile.ParseSignal(w); err == nil {
				s.Signals = append(s.Signals, sig)
			} else {
				return fmt.Errorf("%q is neither an exit status nor a signal", w)
			}
		}
		return nil
	}
}

func exitByName(w string) (int, bool) {
	if n, err := strconv.Atoi(w); err == nil {
		return n, n >= 0 && n <= 255
	}
	for code, name := range exitNames {
		if name == strings.ToUpper(w) {
			return code, true
		}
	}
	return 0, false
}

func workingDirectory(c *compiler, _ unitfile.Option, value string) error {
	dir, mayFail := strings.CutPrefix(value, "-")
	dir = c.expand(dir)
	if dir != "" && dir != "~" && !path.IsAbs(dir) {
		return fmt.Errorf("%q is neither an absolute path nor ~", dir)
	}
	c.Context.WorkingDirectory, c.Context.ChdirMayFail = dir, mayFail
	return nil
}

func umask(c *compiler, _ unitfile.Option, value string) (err error) {
	c.Context.UMask, err = unitfile.ParseMode(value)
	return err
}

func environment(c *compiler, _ unitfile.Option, value string) error {
	if value == "" {
		c.Context.Environment = nil
		return nil
	}
	ws, err := unitfile.Words(value, unitfile.Strict)
	if err != nil {
		return err
	}
	for _, w := range ws {
		w = c.expand(w)
		if err := unitfile.CheckAssignment(w); err != nil {
			return err
		}
		c.Context.Environment = append(c.Context.Environment, w)
	}
	return nil
}

func environmentFile(c *compiler, _ unitfile.Option, value string) error {
	if value == "" {
		c.Context.EnvironmentFiles = nil
		return nil
	}
	name, optional := strings.CutPrefix(value, "-")
	name = c.expand(name)
	if !path.IsAbs(name) {
		return fmt.Errorf("%q is no absolute path", name)
	}
	c.Context.EnvironmentFiles = append(c.Context.EnvironmentFiles, EnvironmentFile{Path: name, Optional: optional})
	return nil
}

func stream(field func(*Config) *Stream) setter {
	return func(c *compiler, _ unitfile.Option, value string) error {
		kind, name, hasPath := strings.Cut(value, ":")
		switch {
		case !hasPath && slices.Contains([]string{"journal", "inherit", "null"}, kind):
			*field(c.Config) = Stream{Kind: kind}
		case !hasPath && kind == "syslog":
			// systemd sends this to the journal too since 246.
			*field(c.Config) = Stream{Kind: "journal"}
		case hasPath && slices.Contains([]string{"file", "append", "truncate"}, kind) && path.IsAbs(c.expand(name)):
			*field(c.Config) = Stream{Kind: kind, Path: c.expand(name)}
		default:
			return fmt.Errorf("%q is none of journal, inherit, null, file:PATH, append:PATH, truncate:PATH", value)
		}
		return nil
	}
}

func syslogLevel(c *compiler, _ unitfile.Option, value string) error {
	n := slices.Index([]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}, value)
	if n < 0 {
		return fmt.Errorf("%q is no level of syslog(3)", value)
	}
	c.Context.LogLevel = n
	return nil
}

func condition(c *compiler, o unitfile.Option, value string) error {
	if value == "" {
		c.Conditions = nil
		return nil
	}
	name, assert := strings.CutPrefix(o.Name, "Assert")
	cond := Condition{Name: strings.TrimPrefix(name, "Condition"), Assert: assert}
	value, cond.Trigger = strings.CutPrefix(value, "|")
	value, cond.Negate = strings.CutPrefix(value, "!")
	cond.Value = c.expand(strings.TrimSpace(value))
	if !path.IsAbs(cond.Value) {
		return fmt.Errorf("%q is no absolute path", cond.Value)
	}
	c.Conditions = append(c.Conditions, cond)
	return nil
}

// limit reads "SOFT:HARD" or one value for both. Sizes take suffixes, LimitCPU a
// time span in seconds.
func limit(resource int) setter {
	return func(c *compiler, _ unitfile.Option, value string) error {
		soft, hard, both := strings.Cut(c.expand(value), ":")
		if !both {
			hard = soft
		}
		s, err := limitValue(resource, soft)
		h, err2 := limitValue(resource, hard)
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if s > h {
			return fmt.Errorf("the soft limit %s is above the hard limit %s", soft, hard)
		}
		c.Context.Limits = append(c.Context.Limits, Limit{Resource: resource, Soft: s, Hard: h})
		return nil
	}
}

func limitValue(resource int, s string) (uint64, error) {
	if resource != 0 || s == "infinity" {
		return unitfile.ParseBytes(s)
	}
	d, err := unitfile.ParseSpan(s)
	return uint64((d + time.Second - 1) / time.Second), err
}
