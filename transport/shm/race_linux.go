//go:build race

package shm

import "sync/atomic"

// The race detector does not know that two mappings are one memory. Where both
// ends of a connection are in one process, as in users' tests, it would see no
// order between what a handler did and what its caller does next. Race builds say
// it by an atomic of their own.
var raceOrder atomic.Uint64

func raceRelease() { raceOrder.Add(1) }
func raceAcquire() { raceOrder.Load() }
