package stile

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/stile-ipc/stile/transport/shm"
)

// limitEnv bounds the shared memory that this process fills, in bytes or with one of
// GOMEMLIMIT's units.
const limitEnv = "STILE_SHM_LIMIT"

// heedLimit reads the environment before the first connection.
var heedLimit = sync.OnceFunc(func() {
	text := os.Getenv(limitEnv)
	if text == "" {
		return
	}
	n, err := parseBytes(text)
	if err != nil {
		slog.Warn("stile: "+limitEnv+" is not heeded", "error", err, "limit", shm.DefaultLimit)
		return
	}
	shm.SetLimit(n)
})

// parseBytes reads a number of bytes, "1048576", "1024KiB" or "1MiB".
func parseBytes(text string) (int64, error) {
	number, unit := strings.TrimSuffix(text, "B"), int64(1)
	for i, suffix := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = rest, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return 0, fmt.Errorf("%q is not a number of bytes, as 268435456 or 256MiB are", text)
	}
	return n * unit, nil
}
