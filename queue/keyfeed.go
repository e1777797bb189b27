package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// KeyValue returns a bucket of keys, made if it is not there. A key's last value survives the end of the process; of the last two
// minutes an embedded server can lose the values in a power cut.
func (q *Queue) KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	kv, err := created(ctx, q, "KV_"+bucket, func(ctx context.Context) (jetstream.KeyValue, error) {
		kv, err := q.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucket, History: keptValues, Replicas: max(q.replicas, 1)})
		if errors.Is(err, jetstream.ErrBucketExists) { // with other settings
			kv, err = q.js.KeyValue(ctx, bucket)
		}
		return kv, err
	})
	if err == nil {
		err = q.settle(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("queue: bucket %q: %w", bucket, err)
	}
	return kv, nil
}

// keptValues is how many values of a key can be looked up.
const keptValues = 10

// KeyFeed tells what a key of a bucket holds, again whenever that changes. It is a [github.com/stile-ipc/stile/policy.Feed]:
//
//	kv, err := q.KeyValue(ctx, "policies")
//	p, err := policy.Follow(ctx, queue.NewKeyFeed(kv, "shop"))
//
// and who puts a file's text into the key has it obeyed by all who follow it.
type KeyFeed struct {
	kv  jetstream.KeyValue
	key string

	mu    sync.Mutex // of the one who is in Next, and Close
	watch jetstream.KeyWatcher
}

// NewKeyFeed returns a feed, whose Close is due in the end.
func NewKeyFeed(kv jetstream.KeyValue, key string) *KeyFeed { return &KeyFeed{kv: kv, key: key} }

// Name is nats://kv/BUCKET/KEY.
func (f *KeyFeed) Name() string { return "nats://kv/" + f.kv.Bucket() + "/" + f.key }

// Next waits for the next value, at first for the one that there is. One that is not there is nil, without an error. One call
// at a time.
func (f *KeyFeed) Next(ctx context.Context) ([]byte, error) {
	w, fresh, err := f.watcher()
	if err != nil {
		return nil, err
	}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case e, open := <-w.Updates():
			switch {
			case !open:
				f.drop(w)
				return nil, errors.New("the server is no longer there")
			case e == nil && !fresh: // the end of what there was
				continue
			case e == nil || e.Operation() != jetstream.KeyValuePut:
				return nil, nil
			}
			return e.Value(), nil
		}
	}
}

// watcher returns what watches the key; fresh: it has told nothing yet.
func (f *KeyFeed) watcher() (w jetstream.KeyWatcher, fresh bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watch != nil {
		return f.watch, false, nil
	}
	w, err = f.kv.Watch(context.Background(), f.key) // until Close
	f.watch = w
	return w, true, err
}

func (f *KeyFeed) drop(w jetstream.KeyWatcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watch == w {
		f.watch = nil
	}
}

// Close ends the feed, after who follows it has been closed.
func (f *KeyFeed) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watch == nil {
		return nil
	}
	err := f.watch.Stop()
	f.watch = nil
	if errors.Is(err, nats.ErrConnectionClosed) {
		return nil // it has ended by that
	}
	return err
}
