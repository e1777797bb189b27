//go:build !linux

package embedded

import "net"

// ours is left to who may write to the folder.
func ours(net.Conn) error { return nil }
