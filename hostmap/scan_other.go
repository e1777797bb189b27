//go:build !linux

package hostmap

import (
	"context"
	"time"
)

// Scan looks at the processes of this host.
func Scan(context.Context) (*Host, error) { return nil, ErrUnsupported }

// Watch is Scan over time.
func Watch(context.Context, time.Duration, time.Duration) (*Host, error) { return nil, ErrUnsupported }
