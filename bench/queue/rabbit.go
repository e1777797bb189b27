package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbit is a quorum queue of a RabbitMQ server of its own, which has a message on disk when it confirms it. The server is a process,
// reached over the loopback.
type rabbit struct {
	run  string // its folder beside the data's
	cmds []*exec.Cmd
	nc   *amqp.Connection
	pub  *amqp.Channel
}

// rabbitServer is where Debian has the server itself; what is in PATH changes the user.
const rabbitServer = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// hasRabbit tells whether there is a server to compare with.
func hasRabbit() bool {
	_, err := os.Stat(rabbitServer)
	return err == nil
}

func openRabbit(dir string) (_ instance, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	r := &rabbit{}
	if r.run, err = os.MkdirTemp("", "rabbit-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(r.run, "rabbitmq.conf")
	plugins := filepath.Join(r.run, "plugins")
	text := "listeners.tcp.default = 127.0.0.1:" + ports[0] + "\nlog.file.level = error\n"
	if err := errors.Join(os.WriteFile(config, []byte(text), 0o600), os.WriteFile(plugins, []byte("[].\n"), 0o600)); err != nil {
		return nil, err
	}
	env := append(os.Environ(), "HOME="+r.run, "ERL_EPMD_PORT="+ports[2], "ERL_EPMD_ADDRESS=127.0.0.1", "RABBITMQ_NODENAME=bench@localhost", "RABBITMQ_DIST_PORT="+ports[1],
		"RABBITMQ_MNESIA_BASE="+dir, "RABBITMQ_LOG_BASE="+r.run, "RABBITMQ_PID_FILE="+filepath.Join(r.run, "pid"), "RABBITMQ_CONFIG_FILE="+config,
		"RABBITMQ_ENABLED_PLUGINS_FILE="+plugins, "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}")
	log, err := os.Create(filepath.Join(r.run, "output"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	for _, args := range [][]string{{"epmd"}, {rabbitServer}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it is a script that starts others
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		r.cmds = append(r.cmds, cmd)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if r.nc, err = amqp.Dial("amqp://guest:guest@127.0.0.1:" + ports[0]); err == nil {
			break
		}
		if time.Now().After(end) {
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("the server does not answer: %w; it says %q", err, said)
		}
	}
	if r.pub, err = r.nc.Channel(); err != nil {
		return nil, err
	}
	if _, err := r.pub.QueueDeclare("bench", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		return nil, err
	}
	return r, r.pub.Confirm(false)
}

// freePorts returns ports of the loopback that nobody has now.
func freePorts(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		all = append(all, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return all, nil
}

func (r *rabbit) publish(ctx context.Context, body []byte) error {
	c, err := r.pub.PublishWithDeferredConfirmWithContext(ctx, "", "bench", false, false, amqp.Publishing{Body: body, DeliveryMode: amqp.Persistent})
	if err != nil {
		return err
	}
	if kept, err := c.WaitContext(ctx); err != nil || !kept {
		return errors.Join(err, errors.New("the server has not kept a message"))
	}
	return nil
}

func (r *rabbit) subscribe(_ context.Context, handle func([]byte)) (func(), error) {
	ch, err := r.nc.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Qos(500, 0, false); err != nil {
		return nil, err
	}
	came, err := ch.Consume("bench", "bench", false, false, false, false, nil)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for m := range came {
			handle(m.Body)
			if err := m.Ack(false); err != nil {
				fmt.Fprintln(os.Stderr, "rabbitmq:", err)
			}
		}
	})
	return func() {
		err := ch.Cancel("bench", false)
		wg.Wait() // came is closed when what was on its way has come
		if err := errors.Join(err, ch.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "rabbitmq:", err)
		}
	}, nil
}

func (r *rabbit) close() error {
	var errs []error
	if r.nc != nil {
		errs = append(errs, r.nc.Close())
	}
	for i := len(r.cmds) - 1; i >= 0; i-- {
		errs = append(errs, syscall.Kill(-r.cmds[i].Process.Pid, syscall.SIGTERM), waited(r.cmds[i]))
	}
	return errors.Join(append(errs, os.RemoveAll(r.run))...)
}
