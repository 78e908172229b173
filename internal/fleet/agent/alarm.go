package agent

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// bootAlarm is an alarm on the boot clock, of the kernel's: one that is due while the
// machine sleeps goes off as soon as it wakes up.
type bootAlarm struct {
	timer *os.File
	fd    int           // of timer, which stays in its non-blocking mode that way
	rings chan struct{} // holds one token for each time it went off and was not heard
}

func newBootAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	b := &bootAlarm{timer: os.NewFile(uintptr(fd), "timerfd"), fd: fd, rings: make(chan struct{}, 1)}
	go b.listen()
	return b, nil
}

// listen passes on when the timer goes off, until it is closed.
func (b *bootAlarm) listen() {
	var count [8]byte
	for {
		if _, err := b.timer.Read(count[:]); err != nil {
			return
		}
		select {
		case b.rings <- struct{}{}:
		default:
		}
	}
}

// Wait implements alarm. It may return early.
func (b *bootAlarm) Wait(ctx context.Context, at time.Duration, wake <-chan struct{}) {
	// A time of zero would disarm it.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(1, at.Nanoseconds()))}
	if err := unix.TimerfdSettime(b.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		panic(fmt.Sprintf("agent: set a timer: %v", err)) // ours, with a valid time
	}
	select {
	case <-ctx.Done():
	case <-wake:
	case <-b.rings:
	}
}

// Close ends the alarm.
func (b *bootAlarm) Close() error { return b.timer.Close() }

var _ alarm = (*bootAlarm)(nil)
