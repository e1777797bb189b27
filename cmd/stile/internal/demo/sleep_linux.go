package demo

import (
	"time"

	"golang.org/x/sys/unix"
)

// preciseSleep returns within about 0.1 ms of d, where time.Sleep may take 1 ms
// more: the runtime waits for its timers in epoll_wait, by the millisecond.
func preciseSleep(d time.Duration) {
	for left := unix.NsecToTimespec(int64(d)); unix.Nanosleep(&left, &left) == unix.EINTR; {
	}
}
