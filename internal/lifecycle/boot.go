package lifecycle

import (
	"fmt"
	"os"
	"strings"
)

// BootEnv is the variable in which our units hand us systemd's own %b (systemd.unit(5)):
// the id of the boot as process 1 sees it.
const BootEnv = "FLOTILLA_BOOT_ID"

const bootFile = "/proc/sys/kernel/random/boot_id"

// BootID tells one run of the system from the next: 32 hexadecimal digits.
//
// What the unit says goes before the kernel's file (random(4)). In a container the file
// is a mount of the container's own, which ProtectKernelTunables= hides from a service:
// below it is the host's, which stays the same when the container reboots.
func BootID() (string, error) {
	id := os.Getenv(BootEnv)
	if id == "" {
		b, err := os.ReadFile(bootFile)
		if err != nil {
			return "", fmt.Errorf("boot id: %w", err)
		}
		id = string(b)
	}
	return strings.ReplaceAll(strings.TrimSpace(id), "-", ""), nil
}
