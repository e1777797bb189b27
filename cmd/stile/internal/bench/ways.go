package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile"
)

// Way is one way that calls can go.
type Way struct {
	Name   string `json:"name"`   // "shm", "unix": Stile's; "grpc", "grpc-unix", "grpc-tcp": grpc-go's
	Target string `json:"target"` // what is dialled

	conn *grpc.ClientConn
	pids []int // of this process and the server, if it is known
}

// names are those of all ways, Stile's first.
var names = []string{"shm", "unix", "grpc", "grpc-unix", "grpc-tcp"}

// Absent is a way that calls cannot go, and why.
type Absent struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// settleLimit is how long a server of our own may take to open its local door.
const settleLimit = 5 * time.Second

// errOtherWay says that a call did not go as it was meant to.
var errOtherWay = errors.New("calls go another way")

// local reports whether a way is one of Stile's.
func (w *Way) local() bool { return w.Name == "shm" || w.Name == "unix" }

// openGRPC dials target as grpc-go does.
func openGRPC(name, target string, pids ...int) (*Way, error) {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &Way{Name: name, Target: target, conn: conn, pids: pids}, nil
}

// openLocal dials target so that calls go over Stile's transport of that name, and
// makes one to see it. If they go another way, the error wraps errOtherWay.
func (b *bench) openLocal(ctx context.Context, name, target string, opts []grpc.DialOption, probe call) (*Way, error) {
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)
	if name == "unix" {
		opts = append(opts, stile.WithoutSharedMemory())
	}
	conn, err := stile.NewClient(target, opts...)
	if err != nil {
		return nil, err
	}
	w := &Way{Name: name, Target: target, conn: conn}
	var p peer.Peer
	if err := probe.within(ctx, b.cfg.Reply, conn, grpc.Peer(&p)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	info, ok := p.AuthInfo.(stile.AuthInfo)
	if !ok || info.Transport != name {
		return nil, errors.Join(errOtherWay, conn.Close())
	}
	if info.PID > 0 {
		w.pids = []int{os.Getpid(), info.PID}
	}
	return w, nil
}

// whyNot tells why calls to target do not go over Stile's transport of that name.
func whyNot(ctx context.Context, name, target string, opts []grpc.DialOption) string {
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)
	d, err := stile.Diagnose(ctx, target, opts...)
	switch {
	case err != nil:
		return err.Error()
	case d.Way == name:
		return "the door opened only now: try again"
	}
	return d.Reason
}

// awaitDoor returns once target, a server of our own, has a local door, or it can
// have none.
func awaitDoor(ctx context.Context, target string, opts []grpc.DialOption) error {
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for until := time.Now().Add(settleLimit); time.Now().Before(until); {
		d, err := stile.Diagnose(ctx, target, opts...)
		if err != nil || d.Way != "grpc" {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// closeWays closes all connections.
func closeWays(ways []*Way) error {
	var errs []error
	for _, w := range ways {
		if err := w.conn.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", w.Name, err))
		}
	}
	return errors.Join(errs...)
}
