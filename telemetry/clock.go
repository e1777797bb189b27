package telemetry

import "time"

var began = time.Now()

// Now is the time since the process began, on the monotonic clock: of [time.Now] it is the cheaper half.
func Now() time.Duration { return time.Since(began) }
