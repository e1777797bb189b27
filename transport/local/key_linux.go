package local

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// netNamespace identifies the process's network namespace: its inode is unique
// while the host runs, the boot id tells hosts and reboots apart.
func netNamespace() (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/net", &st); err != nil {
		return "", fmt.Errorf("network namespace: %w", os.NewSyscallError("stat", err))
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	id := strings.ReplaceAll(strings.TrimSpace(string(boot)), "-", "")
	if len(id) < 16 {
		return "", fmt.Errorf("boot id %q is too short", id)
	}
	return fmt.Sprintf("%d-%s", st.Ino, id[:16]), nil
}
