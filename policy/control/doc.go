// Package control holds the state machines that decide about calls: whether one is made, waits,
// or is made again. They are told the time and own neither clock nor goroutine, so that a
// simulator runs the very machines that a program does.
package control
