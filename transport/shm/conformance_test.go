//go:build linux

package shm

import (
	"testing"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/transporttest"
)

func TestConformance(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (client, server transport.Conn) {
		return newPair(t, Config{}, Config{})
	})
}

func TestConformanceWithoutSpin(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (client, server transport.Conn) {
		return newPair(t, Config{Spin: -1}, Config{Spin: -1})
	})
}
