//go:build !race

package shoptest

var buildFlags, environment []string
