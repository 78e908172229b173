package locksmithd

import (
	"regexp"

	"flotilla/internal/reboot/sema"
)

// saying is what has been said last, so that it is said once.
type saying struct {
	said    string
	failure string
}

// running is the numbers and times in a reason: that they go on does not make it news.
var running = regexp.MustCompile(`[0-9]+([.][0-9]+)?(ns|µs|ms|s|m|h)?`)

// say tells systemd and, if it is news, the log what is done or waited for.
func (d *Daemon) say(s Snapshot, next Step) {
	d.deps.Status(next.Why)
	news := string(next.Do) + running.ReplaceAllString(next.Why, "")
	if news == d.said {
		return
	}
	d.said = news
	if next.Do == Wait {
		d.log.Info("waits", "stage", d.stage, "why", next.Why)
		return
	}
	level := d.log.Info
	if next.Do == Fail {
		level = d.log.Error
	}
	level(sentence(next.Do, s.Locked), "why", next.Why)
}

// sentence says a step to people.
func sentence(do Do, locked bool) string {
	switch do {
	case Take:
		if !locked {
			return "the machine is to reboot"
		}
		return "takes the lock"
	case Cordon:
		return "has the units leave"
	case Announce:
		return "the machine is ready to reboot"
	case Tell:
		return "tells those who are logged in"
	case Reboot:
		return "reboots the machine"
	case Check:
		return "looks whether the machine is well"
	case Uncordon:
		return "takes its cordon away, if there is one"
	case Release:
		return "gives the lock back"
	case Fail:
		return "gives the lock back as a machine that is not well"
	case GiveBack:
		return "gives up the reboot for now"
	}
	return string(do)
}

// failed logs a failure, once as long as it stays the same.
func (d *Daemon) failed(step Step, err error) {
	if text := string(step.Do) + err.Error(); text != d.failure {
		d.failure = text
		d.log.Warn("failed, trying again", "step", step.Do, "err", err)
	}
	d.said = ""
}

// lostText is why a holder with this entry is taken for dead. Of one that never gives a
// sign of life it says so: it may be slow, and who reads it may give it more time.
func lostText(s sema.Suspect, d sema.Detail) string {
	text := "no sign of life for " + s.Silent.String()
	switch {
	case d.Timeout > 0:
		return text + " (FleetLock clients give none: fleetlock_holder_timeout is their time)"
	case d.Boot == "" && d.Seq == 0:
		return text + " (classic clients give none: holder_timeout is their time)"
	}
	return text
}
