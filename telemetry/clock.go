package telemetry

import "time"

var began = time.Now()

// Now is the time since the process began, on the monotonic clock: of [time.Now] it is the cheaper half.
func Now() time.Duration { return time.Since(began) }

// At is what [Now] was when [time.Now] returned t.
func At(t time.Time) time.Duration { return t.Sub(began) }
