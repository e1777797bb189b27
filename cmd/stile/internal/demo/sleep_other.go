//go:build !linux

package demo

import "time"

func preciseSleep(d time.Duration) { time.Sleep(d) }
