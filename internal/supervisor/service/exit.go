package service

import (
	"fmt"
	"strconv"

	"flotilla/internal/unitfile"
)

// Exit is how a process ended. The zero value is exit status 0.
type Exit struct {
	Code    int  // exit status, or the signal's number if Signal is set
	Signal  bool // ended by a signal
	Core    bool // ... and left a core dump
	Unknown bool // nobody saw it: the process was not ours to wait for
	Foreign bool // it was told to another process, the parent
}

// String is "code=exited, status=1/FAILURE" as systemd logs it.
func (e Exit) String() string {
	switch {
	case e.Unknown:
		return "code=unknown, status=n/a"
	case e.Core:
		return fmt.Sprintf("code=dumped, status=%d/%s", e.Code, unitfile.SignalName(e.Code))
	case e.Signal:
		return fmt.Sprintf("code=killed, status=%d/%s", e.Code, unitfile.SignalName(e.Code))
	}
	name, ok := exitNames[e.Code]
	if !ok {
		name = "n/a"
	}
	return fmt.Sprintf("code=exited, status=%d/%s", e.Code, name)
}

// kind is the word of $EXIT_CODE, status that of $EXIT_STATUS (systemd.exec(5)).
func (e Exit) kind() string {
	switch {
	case e.Core:
		return "dumped"
	case e.Signal:
		return "killed"
	}
	return "exited"
}

func (e Exit) status() string {
	if e.Signal {
		return unitfile.SignalName(e.Code)
	}
	return strconv.Itoa(e.Code)
}

// Exit statuses of processes that could not be started (systemd.exec(5),
// "Process Exit Codes").
const (
	ExitChdir     = 200
	ExitNice      = 201
	ExitExec      = 203
	ExitLimits    = 205
	ExitOOMAdjust = 206
	ExitStdout    = 209
	ExitGroup     = 216
	ExitUser      = 217
	exitGeneric   = 255
)

// exitNames are the names that systemd.exec(5) lists, and those of sysexits.h.
var exitNames = map[int]string{
	0: "SUCCESS", 1: "FAILURE", 2: "INVALIDARGUMENT", 3: "NOTIMPLEMENTED", 4: "NOPERMISSION",
	5: "NOTINSTALLED", 6: "NOTCONFIGURED", 7: "NOTRUNNING",
	64: "USAGE", 65: "DATAERR", 66: "NOINPUT", 67: "NOUSER", 68: "NOHOST", 69: "UNAVAILABLE",
	70: "SOFTWARE", 71: "OSERR", 72: "OSFILE", 73: "CANTCREAT", 74: "IOERR", 75: "TEMPFAIL",
	76: "PROTOCOL", 77: "NOPERM", 78: "CONFIG",
	ExitChdir: "CHDIR", ExitNice: "NICE", 202: "FDS", ExitExec: "EXEC", 204: "MEMORY", ExitLimits: "LIMITS",
	ExitOOMAdjust: "OOM_ADJUST", 207: "SIGNAL_MASK", 208: "STDIN", ExitStdout: "STDOUT", 210: "CHROOT",
	211: "IOPRIO", 212: "TIMERSLACK", 213: "SECUREBITS", 214: "SETSCHEDULER", 215: "CPUAFFINITY",
	ExitGroup: "GROUP", ExitUser: "USER", 218: "CAPABILITIES", 219: "CGROUP", 220: "SETSID",
	221: "CONFIRM", 222: "STDERR", 224: "PAM", 225: "NETWORK", 226: "NAMESPACE", 227: "NO_NEW_PRIVILEGES",
	228: "SECCOMP", 229: "SELINUX_CONTEXT", 230: "PERSONALITY", 231: "APPARMOR_PROFILE", 232: "ADDRESS_FAMILIES",
	233: "RUNTIME_DIRECTORY", 235: "CHOWN", 236: "SMACK_PROCESS_LABEL", 237: "KEYRING", 238: "STATE_DIRECTORY",
	239: "CACHE_DIRECTORY", 240: "LOGS_DIRECTORY", 241: "CONFIGURATION_DIRECTORY", 242: "NUMA_POLICY",
	243: "CREDENTIALS", exitGeneric: "EXCEPTION",
}

// ExitSet is a list of exit statuses and signals, as SuccessExitStatus= takes it.
type ExitSet struct {
	Codes   []int
	Signals []int
}

func (s ExitSet) has(e Exit) bool {
	list := s.Codes
	if e.Signal {
		list = s.Signals
	}
	for _, n := range list {
		if n == e.Code && !e.Unknown {
			return true
		}
	}
	return false
}

// Result is why a service failed, in the words of systemd's Result property.
type Result string

// The results of a service.
const (
	Success       Result = "success"
	Resources     Result = "resources"
	Protocol      Result = "protocol"
	Timeout       Result = "timeout"
	ExitCode      Result = "exit-code"
	Signal        Result = "signal"
	CoreDump      Result = "core-dump"
	Watchdog      Result = "watchdog"
	StartLimit    Result = "start-limit-hit"
	SkipCondition Result = "exec-condition"
)

// The signals that end a daemon cleanly: HUP, INT, PIPE, TERM (systemd.service(5),
// "SuccessExitStatus=").
var cleanSignals = map[int]bool{1: true, 2: true, 13: true, 15: true}

// judge says what an exit means. daemon is true for a process that may be ended by
// a signal, false for a command that must exit. An end that nobody saw is taken
// for a failure, so that Restart=on-failure brings the service back.
func judge(e Exit, daemon bool, good ExitSet) Result {
	switch {
	case e.Unknown:
		return ExitCode
	case good.has(e):
		return Success
	case e.Core:
		return CoreDump
	case e.Signal && daemon && cleanSignals[e.Code]:
		return Success
	case e.Signal:
		return Signal
	case e.Code == 0:
		return Success
	}
	return ExitCode
}
