package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
)

// A line is what happens to the attendance a minute after the line before: +a comes, -a
// goes, =ab are there when all is read anew, ! ends a hold, ? forgets those that
// hold nothing, xa has a forgotten. What follows is who is lost since when, and how many were seen.
func TestAttendance(t *testing.T) {
	script := `
=abc          | seen 3
-a            | a since 2, seen 3
-b            | a since 2 b since 3, seen 3
!             | a since 4 b since 4, seen 3
+a            | b since 4, seen 3
+d            | b since 4, seen 3
+b            | seen 4
=ad           | b since 8 c since 8, seen 4
-x            | b since 8 c since 8, seen 4
?             | b since 8 c since 8, seen 4
wait 2h       | b since 8 c since 8, seen 4
?             | seen 2
+b            | seen 3
+c            | seen 4
-a            | a since 135, seen 4
-b            | a since 135 b since 136, seen 4
xb            | a since 135, seen 3
xb            | a since 135, seen 3
xc            | a since 135, seen 3
xa            | seen 2`
	r := attendance{present: map[string]bool{}, lost: map[string]time.Time{}}
	start := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	now := start
	for line := range strings.Lines(strings.TrimSpace(script)) {
		do, want, _ := strings.Cut(strings.TrimSpace(line), "|")
		do, want = strings.TrimSpace(do), strings.TrimSpace(want)
		now = now.Add(time.Minute)
		switch do[0] {
		case '=':
			var ms []model.Machine
			for _, id := range do[1:] {
				ms = append(ms, model.Machine{ID: string(id)})
			}
			r.call(ms, now)
		case '+', '-':
			r.mark(do[1:], do[0] == '+', now)
		case '!':
			r.restart(now)
		case '?':
			r.forget(map[string]bool{}, now)
		case 'x':
			r.drop(do[1:])
		case 'w':
			now = now.Add(2 * time.Hour)
		}
		lost, seen := r.report()
		var parts []string
		for _, id := range []string{"a", "b", "c", "d", "x"} {
			if since, ok := lost[id]; ok {
				parts = append(parts, fmt.Sprintf("%s since %d", id, int(since.Sub(start).Minutes())))
			}
		}
		got := fmt.Sprintf("seen %d", seen)
		if len(parts) > 0 {
			got = strings.Join(parts, " ") + ", " + got
		}
		if got != want {
			t.Errorf("after %s: %s, want %s", do, got, want)
		}
	}
}
