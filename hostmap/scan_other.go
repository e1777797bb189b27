//go:build !linux

package hostmap

import "context"

// Scan looks at the processes of this host.
func Scan(context.Context) (*Host, error) { return nil, ErrUnsupported }
