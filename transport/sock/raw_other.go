//go:build !unix

package sock

import "net"

// rawWriter exists on unix systems only; elsewhere the flusher goroutine writes.
type rawWriter struct{}

func newRawWriter(net.Conn) *rawWriter { return nil }

func (*rawWriter) write([]byte, bool) (int, error) { panic("sock: no raw writer") }
