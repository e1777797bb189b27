package queue

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// KVInbox is an inbox in a bucket of keys, for effects that no database of ours has a transaction for, such as an e-mail. It is coarser than
// [SQLInbox]: the effect and the memory of it are two steps. When the process ends between them, or the bucket cannot be written, the effect
// happens again.
type KVInbox struct{ kv jetstream.KeyValue }

// NewKVInbox returns the inbox in a bucket, which is made if it is not there. It forgets what is older than age, which is longer than any topic
// keeps its messages. On an embedded server a power cut can make it forget the last two minutes.
func NewKVInbox(ctx context.Context, q *Queue, bucket string, age time.Duration) (*KVInbox, error) {
	if age < idWindow {
		return nil, fmt.Errorf("queue: inbox: it is to forget after %s, at least are %s", age, idWindow)
	}
	kv, err := q.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucket, TTL: age, Replicas: max(q.replicas, 1), Description: "what was done once"})
	if errors.Is(err, jetstream.ErrBucketExists) {
		return nil, fmt.Errorf("queue: inbox: the bucket %q is there with other settings", bucket)
	}
	if err == nil {
		err = q.settle(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("queue: inbox: bucket %q: %w", bucket, explained(err))
	}
	return &KVInbox{kv}, nil
}

// Once implements [Inbox].
func (i *KVInbox) Once(ctx context.Context, key InboxKey, f func(ctx context.Context) error) error {
	sum := sha256.Sum256([]byte(key.Topic + "\x00" + key.Group + "\x00" + key.ID)) // an ID may have what no key can
	name := base64.RawURLEncoding.EncodeToString(sum[:])
	_, err := i.kv.Get(ctx, name)
	if err == nil {
		return nil
	}
	if !errors.Is(err, jetstream.ErrKeyNotFound) {
		return fmt.Errorf("queue: inbox: %w", err)
	}
	if err := f(ctx); err != nil {
		return err
	}
	if _, err := i.kv.Put(context.WithoutCancel(ctx), name, []byte(key.ID)); err != nil {
		return fmt.Errorf("queue: inbox: it is done, and may be done again: %w", err)
	}
	return nil
}
