package telemetry

import (
	"crypto/rand"
	"os"
	"strings"
	"sync"
)

// Self is this process's identity.
var Self = func() (id Identity) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}()

// Process is what counts this process's calls and messages, once it is enabled; nil: STILE_TELEMETRY in its environment has it that none are counted.
var Process = sync.OnceValue(func() *Recorder {
	switch strings.ToLower(os.Getenv("STILE_TELEMETRY")) {
	case "off", "0", "false", "no":
		return nil
	}
	return NewRecorder()
})
