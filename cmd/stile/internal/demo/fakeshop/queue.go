package fakeshop

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stile-ipc/stile/queue"
)

// joinQueue has a queue in the folder data as orders does, or subscribes to the one in folder as mailer does, if either has a name.
func joinQueue(ctx context.Context, data, folder string) (end func(), err error) {
	switch {
	case data != "":
		return openQueue(ctx, queue.Config{Dir: filepath.Join(data, "queue")}, false)
	case folder == "":
		return func() {}, nil
	}
	leave := func() {}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if end, err := openQueue(ctx, queue.Config{URL: "unix://" + folder}, true); err == nil {
				leave = end
				return
			}
			time.Sleep(20 * time.Millisecond) // orders is not there yet
		}
	}()
	return func() {
		<-done
		leave()
	}, nil
}

func openQueue(ctx context.Context, cfg queue.Config, subscribe bool) (end func(), err error) {
	q, err := queue.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	topic, err := queue.NewTopic[*emptypb.Empty](q, "orders.placed")
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	if !subscribe {
		return func() { _ = q.Close() }, nil
	}
	sub, err := topic.Subscribe(ctx, "mailer", func(context.Context, *queue.Msg[*emptypb.Empty]) error { return nil })
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return func() {
		sub.Stop()
		_ = q.Close()
	}, nil
}
