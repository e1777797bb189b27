package local

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// standsForAnyone reports whether uid is the one (65534, mostly) that a user
// namespace shows for every uid it has no name for, in a namespace that has no
// name for some.
func standsForAnyone(uid int) bool {
	overflow := 65534
	if b, err := os.ReadFile("/proc/sys/kernel/overflowuid"); err == nil {
		if n, err := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil {
			overflow = n
		}
	}
	if uid != overflow {
		return false
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !mapsAll(b)
}

// mapsAll reports whether a uid_map names all 2^32-1 uids.
func mapsAll(uidMap []byte) bool {
	var total uint64
	for s := bufio.NewScanner(bytes.NewReader(uidMap)); s.Scan(); {
		var inside, outside, n uint64
		if _, err := fmt.Sscan(s.Text(), &inside, &outside, &n); err == nil {
			total += n
		}
	}
	return total >= 1<<32-1
}
