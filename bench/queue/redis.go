package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisStream is a stream of a Redis server of its own, whose log is synced before it answers. The server is a process, reached over a unix socket.
type redisStream struct {
	dir string
	cmd *exec.Cmd
	c   *redis.Client
}

// hasRedis tells whether there is a server to compare with.
func hasRedis() bool {
	_, err := exec.LookPath("redis-server")
	return err == nil
}

func openRedis(dir string) (instance, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	run, err := os.MkdirTemp("", "r") // short, for the socket
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(run, "s")
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--unixsocketperm", "600", "--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no")
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(run))
	}
	r := &redisStream{run, cmd, redis.NewClient(&redis.Options{Network: "unix", Addr: socket, PoolSize: 512})}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = r.c.Ping(context.Background()).Err(); err == nil || time.Now().After(end) {
			break
		}
	}
	if err == nil {
		err = r.c.XGroupCreateMkStream(context.Background(), "bench", "bench", "0").Err()
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *redisStream) publish(ctx context.Context, body []byte) error {
	return r.c.XAdd(ctx, &redis.XAddArgs{Stream: "bench", Values: []any{"b", body}}).Err()
}

// subscribe reads up to 500 messages at a time, and acknowledges them together.
func (r *redisStream) subscribe(ctx context.Context, handle func([]byte)) (func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			got, err := r.c.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "bench", Consumer: "one", Streams: []string{"bench", ">"}, Count: 500, Block: 100 * time.Millisecond}).Result()
			if errors.Is(err, redis.Nil) || ctx.Err() != nil {
				continue
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "redis:", err)
				return
			}
			var ids []string
			for _, m := range got[0].Messages {
				body, _ := m.Values["b"].(string)
				handle([]byte(body))
				ids = append(ids, m.ID)
			}
			if err := r.c.XAck(context.WithoutCancel(ctx), "bench", "bench", ids...).Err(); err != nil {
				fmt.Fprintln(os.Stderr, "redis:", err)
			}
		}
	})
	return func() { cancel(); wg.Wait() }, nil
}

func (r *redisStream) close() error {
	return errors.Join(r.c.Close(), r.cmd.Process.Signal(syscall.SIGTERM), waited(r.cmd), os.RemoveAll(r.dir))
}

// waited waits for a process that was told to end, however it does.
func waited(cmd *exec.Cmd) error {
	err := cmd.Wait()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return nil
	}
	return err
}
