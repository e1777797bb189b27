// Package embedded runs a NATS server with JetStream inside the process, on one folder, for package queue. The server has no
// port, unless it is told to listen: its own process reaches it through Connect, others of the same user through Visit.
package embedded

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/stile-ipc/stile/internal/filelock"
)

// Config says what a Server is made of.
type Config struct {
	// Dir is the server's folder, made if it is not there. One process at a time can use it.
	Dir string
	// MaxStore is how many bytes the limits of all streams together may come to; 0: 32 GiB. The disk has to have room for them and a fifth more:
	// the server counts messages, not what surrounds them.
	MaxStore int64
	// MaxPayload is how large a message may be, with its headers, in bytes; 0: 1 MiB and 16 KiB for headers.
	MaxPayload int32
	// Listen is an address for NATS's clients; empty: there is no port.
	Listen string
	// TLS is for those who come by Listen; nil: there is none.
	TLS *tls.Config
	// Allows tells whether a client with a token may do all; nil: all may.
	Allows func(token string) bool
	// SyncAlways has the server acknowledge only what is on disk.
	SyncAlways bool
	// Logger has the server's warnings and errors; nil: slog.Default.
	Logger *slog.Logger
}

const (
	defaultMaxStore   = 32 << 30
	defaultMaxPayload = 1<<20 + 16<<10
	maxMemory         = 64 << 20 // of streams in memory, of which we make none; 0 would be three quarters of the machine's
	startLimit        = time.Minute
)

// Server is an embedded server. Its methods are safe for concurrent use.
type Server struct {
	dir     string
	server  *server.Server
	crashed bool // the one before
	lock    *os.File
	log     *natsLog
	files   syncer
	door    *door
	inside  string // the token of this process; empty: none is needed
}

// ErrInUse is what Start returns while another process, or another Server of this one, has the folder.
var ErrInUse = errors.New("the folder is in use by another process")

// Start starts a server on a folder.
func Start(cfg Config) (*Server, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil || cfg.Dir == "" {
		return nil, fmt.Errorf("embedded: the folder %q: %w", cfg.Dir, errors.Join(err, os.ErrInvalid))
	}
	if cfg.MaxStore <= 0 {
		cfg.MaxStore = defaultMaxStore
	}
	if cfg.MaxPayload <= 0 {
		cfg.MaxPayload = defaultMaxPayload
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	lock, err := filelock.Lock(filepath.Join(dir, "lock"))
	if errors.Is(err, filelock.ErrLocked) {
		err = ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("embedded: %s: %w", dir, err)
	}
	s := &Server{dir: dir, lock: lock, log: &natsLog{log: cfg.Logger}}
	if err = s.mark(); err == nil {
		err = s.start(cfg)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("embedded: %s: %w", dir, err)
	}
	return s, nil
}

// running is a file that is there until the server is closed.
const running = "running"

// mark notes that the server runs, and whether one did that was not closed.
func (s *Server) mark() error {
	f, err := os.OpenFile(filepath.Join(s.dir, running), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		s.crashed = true
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// Crashed tells whether the server that had the folder before was not closed: what it knew of deliveries in its last moments is lost.
func (s *Server) Crashed() bool { return s.crashed }

func (s *Server) start(cfg Config) error {
	opts := &server.Options{
		ServerName: "stile", DontListen: true, NoSigs: true, NoLog: true, MaxPayload: cfg.MaxPayload, SyncAlways: cfg.SyncAlways,
		JetStream: true, StoreDir: s.dir, JetStreamMaxStore: cfg.MaxStore, JetStreamMaxMemory: maxMemory, DisableJetStreamBanner: true,
	}
	if err := s.listen(cfg, opts); err != nil {
		return err
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	srv.SetLoggerV2(s.log, false, false, false)
	srv.Start() // says only in the log what it could not do
	s.server = srv
	if err := s.started(); err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return err
	}
	return nil
}

// started tells why the server did not start as it should.
func (s *Server) started() error {
	if fatal := s.log.fatal.Load(); fatal != nil {
		return errors.New(*fatal)
	}
	if !s.server.ReadyForConnections(startLimit) {
		return fmt.Errorf("the server was not ready within %s", startLimit)
	}
	return s.Health()
}

// OpenDoor lets other processes in, by Visit and Dial. It is called once, when they may change what is there.
func (s *Server) OpenDoor() (err error) {
	if s.door, err = openDoor(s.dir, s.server, s.log.log); err != nil {
		return fmt.Errorf("embedded: %s: %w", s.dir, err)
	}
	return nil
}

// Connect connects to the server. The connection is the caller's.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	nc, err := nats.Connect("", append(s.Options(), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	return nc, nil
}

// Dial makes a connection on which the server speaks NATS's protocol. It is the caller's.
func (s *Server) Dial() (net.Conn, error) {
	c, err := s.server.InProcessConn()
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	return c, nil
}

// Health tells what is wrong with the server, such as a disk that was full: a stream that could not write takes nothing any more
// until the server is started again.
func (s *Server) Health() error {
	h := s.server.Healthz(&server.HealthzOptions{Details: true})
	if h == nil || h.StatusCode == 200 {
		return nil
	}
	if notInTime(h) {
		return nil
	}
	var all []string
	for _, e := range h.Errors {
		all = append(all, strings.TrimSpace(e.Stream+" "+e.Error))
	}
	if len(all) == 0 {
		all = append(all, strings.TrimSpace(h.Status+" "+h.Error))
	}
	return fmt.Errorf("embedded: %s", strings.Join(all, "; "))
}

// notInTime tells whether the server, which has started, did not find the millisecond in which it sees that: it is busy, not sick.
func notInTime(h *server.HealthStatus) bool {
	const late = "failed to be ready for connections"
	return strings.Contains(h.Error, late) || len(h.Errors) == 1 && strings.Contains(h.Errors[0].Error, late)
}

// Sync returns when all that the server had acknowledged is on disk.
func (s *Server) Sync() error {
	if err := s.files.sync(s.dir); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	return nil
}

// Close stops the server. Connections must have been closed.
func (s *Server) Close() error {
	s.door.shut()
	s.server.Shutdown()
	s.server.WaitForShutdown()
	err := s.Sync()
	if err == nil {
		err = os.Remove(filepath.Join(s.dir, running))
	}
	return errors.Join(err, s.lock.Close())
}

// natsLog gives the server's words to slog. What it says while all is well is Debug.
type natsLog struct {
	log   *slog.Logger
	fatal atomic.Pointer[string] // the first
}

func (l *natsLog) Noticef(format string, v ...any) { l.log.Debug("nats: " + fmt.Sprintf(format, v...)) }
func (l *natsLog) Warnf(format string, v ...any)   { l.log.Warn("nats: " + fmt.Sprintf(format, v...)) }
func (l *natsLog) Errorf(format string, v ...any)  { l.log.Error("nats: " + fmt.Sprintf(format, v...)) }
func (l *natsLog) Debugf(string, ...any)           {}
func (l *natsLog) Tracef(string, ...any)           {}

// Fatalf does not end the process.
func (l *natsLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.fatal.CompareAndSwap(nil, &text)
	l.log.Error("nats: " + text)
}
