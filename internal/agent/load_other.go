//go:build !unix

package agent

import "time"

func (u *usage) rusage() {}

func runQueues() map[string]time.Duration { return nil }
