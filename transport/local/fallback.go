package local

import (
	"log/slog"
	"sync"
)

// fellBack says once per process and side that connections go over the socket
// although shared memory was wanted.
var fellBack fallbackLog

type fallbackLog struct {
	mu   sync.Mutex
	said map[string]bool
}

// warn logs the first fallback found by side ("server": could not make memory;
// "client": could not map it).
func (f *fallbackLog) warn(l *slog.Logger, side string, reason error) {
	f.mu.Lock()
	first := !f.said[side]
	if f.said == nil {
		f.said = make(map[string]bool)
	}
	f.said[side] = true
	f.mu.Unlock()
	if first {
		l.Warn("local: no shared memory, using the socket; further cases are not logged", "side", side, "reason", reason)
	}
}
