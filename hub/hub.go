package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/internal/agent"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

// The addresses that a hub listens on, if nothing else is said: OpenTelemetry's, and the next one.
const (
	DefaultOTLPGRPC = "127.0.0.1:4317"
	DefaultOTLPHTTP = "127.0.0.1:4318"
	DefaultHTTP     = "127.0.0.1:4319"
)

// Off is the address of what a hub does not listen for.
const Off = "off"

// DefaultMaxBytes is how large the file of what is kept may be.
const DefaultMaxBytes = 2 << 30

// Config says how a hub is. The zero value, with a Dir, is that of a hub for its own host.
type Config struct {
	Dir      string // its folder, made if it is not there
	OTLPGRPC string // an address, [Off], or empty for the default, as the next two
	OTLPHTTP string
	HTTP     string // of the API
	Socket   string // path of a unix socket, of this user alone, on which spans and reports are taken as on OTLPGRPC; empty: none
	TLS      *tls.Config
	Tokens   []Token // who may do what; none: anybody who can connect, which is why all addresses have to be loopback then
	Spans    int     // how many are held until their traces are complete; 0: a million, of about 0.5 kB each
	MaxBytes int64   // of the file of what is kept; 0: [DefaultMaxBytes]

	Forward *Forward // nil: what comes stays here

	NATS         string // address of a NATS server with JetStream, in the hub's folder; empty or [Off]: there is none
	NATSMaxBytes int64  // that its topics may keep together, what they may and have not included; 0: [DefaultNATSMaxBytes]
	NATSURL      string // of NATS servers elsewhere, whose topics are looked at and acted on, too
	NATSCreds    string // file with credentials for them

	Logger *slog.Logger // nil: slog.Default
	clock  func() time.Time

	readWithin time.Duration // in which a request has to come
}

// ErrInUse: another hub has the folder.
var ErrInUse = store.ErrInUse

// Hub is one that runs. Its methods are safe for concurrent use.
type Hub struct {
	cfg     Config
	log     *slog.Logger
	store   *store.Store
	intake  *intake
	agents  *agents
	totals  totals
	keeper  *keeper
	access  access
	forward *forwarder

	nats *servers
	self *hubpb.Process // the hub's own

	reading, decoding, asking, acts turns
	began                           time.Time

	listeners map[string]net.Listener // by what they are for
	grpc      []*grpc.Server
	servers   []*http.Server
	serving   sync.WaitGroup
}

// Open opens the folder and listens. [ErrInUse] is returned while another hub has the folder.
func Open(ctx context.Context, cfg Config) (_ *Hub, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("hub: it needs a folder")
	}
	if cfg.Spans <= 0 {
		cfg.Spans = routemap.DefaultSpans
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.NATSMaxBytes <= 0 {
		cfg.NATSMaxBytes = DefaultNATSMaxBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.clock == nil {
		cfg.clock = time.Now
	}
	if cfg.readWithin == 0 {
		cfg.readWithin = readWithin
	}
	h := &Hub{cfg: cfg, log: cfg.Logger, access: access{cfg.Tokens, cfg.TLS != nil}, reading: newTurns(reading, patience), decoding: newTurns(decoding(), patience), asking: newTurns(maxAsking, askPatience), acts: newTurns(1, actPatience), began: cfg.clock(), listeners: map[string]net.Listener{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("hub: %w", err), h.closeListeners())
			if h.store != nil {
				err = errors.Join(err, h.nats.close(), h.store.Close())
			}
		}
	}()
	if err := h.access.check(); err != nil {
		return nil, err
	}
	for what, at := range h.addresses() {
		if err := h.listen(ctx, what, at); err != nil {
			return nil, err
		}
	}
	if cfg.Socket != "" {
		l, err := listenSocket(cfg.Socket)
		if err != nil {
			return nil, fmt.Errorf("the socket: %w", err)
		}
		h.listeners[forSocket] = l
	}
	if h.store, err = store.Open(ctx, cfg.Dir, cfg.MaxBytes); err != nil {
		return nil, err
	}
	if at := h.store.Moved; at != "" {
		h.log.Warn("hub: windows of an earlier version are not read; the file was moved, and the hub begins anew", "file", at)
	}
	h.intake = newIntake(cfg.Spans, cfg.clock)
	h.agents = newAgents(cfg.clock)
	if h.agents.before, err = h.store.Reported(ctx, cfg.clock()); err != nil {
		return nil, err
	}
	h.self = agent.Self(telemetry.Identity(h.agents.self))
	h.self.Service = hubService
	if h.nats, err = openServers(ctx, cfg, h.access, h.self, h.agents.queues); err != nil {
		return nil, err
	}
	if h.forward, err = newForwarder(cfg.Forward, h.agents.self, h.listeners, cfg.Logger); err != nil {
		return nil, err
	}
	if h.forward != nil {
		h.forward.all.Go(h.tellOwn)
	}
	h.keeper = newKeeper(h.intake, h.agents, &h.totals, h.store, cfg.clock, h.log)
	h.serve()
	return h, nil
}

// What a hub listens for.
const (
	forOTLPGRPC = "OTLP/gRPC"
	forOTLPHTTP = "OTLP/HTTP"
	forAPI      = "API"
	forSocket   = "socket"
)

// ForNATS is what NATS's clients come for, in [Hub.Addrs].
const ForNATS = "NATS"

func (h *Hub) addresses() map[string]string {
	all := map[string]string{forOTLPGRPC: h.cfg.OTLPGRPC, forOTLPHTTP: h.cfg.OTLPHTTP, forAPI: h.cfg.HTTP}
	for what, at := range map[string]string{forOTLPGRPC: DefaultOTLPGRPC, forOTLPHTTP: DefaultOTLPHTTP, forAPI: DefaultHTTP} {
		switch all[what] {
		case "":
			all[what] = at
		case Off:
			delete(all, what)
		}
	}
	return all
}

// maxConnections is how many each address has at once.
const maxConnections = 4096

func (h *Hub) listen(ctx context.Context, what, at string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", at)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	h.listeners[what] = l
	if err := h.access.reachable(l.Addr()); err != nil {
		return fmt.Errorf("%s on %s: %w", what, l.Addr(), err)
	}
	return nil
}

func (h *Hub) closeListeners() (err error) {
	for _, l := range h.listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

func (h *Hub) serve() {
	for what, security := range map[string]*tls.Config{forOTLPGRPC: h.cfg.TLS, forSocket: nil} {
		l := h.listeners[what]
		if l == nil {
			continue
		}
		s := h.newGRPC(security)
		h.grpc = append(h.grpc, s)
		h.serving.Go(func() {
			if err := stile.Serve(s, limited(l)); err != nil {
				h.log.Error("hub: it does not listen any more", "for", what, "error", err)
			}
		})
	}
	for what, handler := range map[string]http.Handler{forOTLPHTTP: h.otlpHTTP(), forAPI: h.api()} {
		l := h.listeners[what]
		if l == nil {
			continue
		}
		s := &http.Server{
			Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
			ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug), // of connections that end
		}
		h.servers = append(h.servers, s)
		h.serving.Go(func() {
			serve := func() error { return s.Serve(limited(l)) }
			if h.cfg.TLS != nil {
				s.TLSConfig = h.cfg.TLS.Clone() // each server changes its own
				serve = func() error { return s.ServeTLS(limited(l), "", "") }
			}
			if err := serve(); !errors.Is(err, http.ErrServerClosed) {
				h.log.Error("hub: it does not listen any more", "for", what, "error", err)
			}
		})
	}
}

// Addrs are where the hub listens, by what for.
func (h *Hub) Addrs() map[string]string {
	all := map[string]string{}
	for what, l := range h.listeners {
		all[what] = l.Addr().String()
	}
	if at := h.nats.addr(); at != "" {
		all[ForNATS] = at
	}
	return all
}

// Close takes nothing in any more, ends what traces are held and keeps what is known; ctx bounds how long requests that are under way are waited for.
func (h *Hub) Close(ctx context.Context) error {
	var errs []error
	for _, s := range h.grpc {
		stopped := make(chan struct{})
		go func() {
			s.GracefulStop()
			close(stopped)
		}()
		select {
		case <-stopped:
		case <-ctx.Done():
			s.Stop()
			<-stopped
		}
	}
	for _, s := range h.servers {
		if err := s.Shutdown(ctx); err != nil {
			errs = append(errs, err, s.Close())
		}
	}
	h.serving.Wait()
	errs = append(errs, h.nats.close(), h.keeper.close(), h.forward.close(ctx), h.store.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	return nil
}
