package inproc_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/inproc"
	"github.com/stile-ipc/stile/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPipeConformance(t *testing.T) {
	transporttest.Run(t, func(*testing.T) (client, server transport.Conn) { return inproc.Pipe() })
}

func TestListenerConformance(t *testing.T) {
	var n atomic.Int64
	addr := func(*testing.T) string { return fmt.Sprintf("name-%d", n.Add(1)) }
	transporttest.RunListener(t, new(inproc.Transport), addr)
}
