//go:build !linux

package demo

func usageOf([]int) (usage, error) { return usage{}, errNoUsage }
