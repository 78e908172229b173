package lifecycle

import (
	"regexp"
	"testing"
)

// The unit's word counts; without it, what the kernel says, in the same form.
func TestBootID(t *testing.T) {
	t.Setenv(BootEnv, "")
	kernel, err := BootID()
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(kernel) {
		t.Fatalf("got %q, %v", kernel, err)
	}
	const unit = "0123456789abcdef0123456789abcdef"
	for _, given := range []string{unit, "01234567-89ab-cdef-0123-456789abcdef"} {
		t.Setenv(BootEnv, given)
		if got, err := BootID(); got != unit || err != nil {
			t.Errorf("%s: got %q, %v", given, got, err)
		}
	}
}
