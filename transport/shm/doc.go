// Package shm carries frames through memory that two processes share.
//
// A [Conn] owns one sealed memfd with a ring for each direction and one eventfd
// for each side, its doorbell. A side that is awake is never rung: while frames
// arrive a spinning reader picks them up, and no system call is made at all.
//
// Reading is done by whoever holds the receive lock: a goroutine of the
// connection, which sleeps in Go's network poller on the doorbell, or a caller
// in [Conn.Poll] that waits for its own reply.
//
// The control socket carries no bytes once the connection runs. Its end tells
// that the peer is gone, and the kernel ends it however the peer died.
//
// Nothing in the memory is trusted. Indices, headers and payloads are copied out
// before they are checked and used, and the seals make sure that no mapped page
// can vanish. All use of package unsafe in Stile's transports is in this package.
package shm
