// Package echopb holds the echo service of the benchmark, generated for every
// peer that it compares.
package echopb

//go:generate ./generate.sh
