//go:build !linux

package local

func standsForAnyone(int) bool { return false }
