package embedded

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"net"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// maxClients is how many connections those have together who come by Listen.
const maxClients = 4096

// listen has a server listen, if it is to.
func (s *Server) listen(cfg Config, opts *server.Options) error {
	if cfg.Listen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return err
	}
	if opts.Port, err = strconv.Atoi(port); err != nil || opts.Port < 0 || opts.Port > 65535 {
		return fmt.Errorf("the address %q has no port", cfg.Listen)
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	opts.Host, opts.DontListen, opts.MaxConn = host, false, maxClients
	if cfg.TLS != nil {
		opts.TLS, opts.TLSConfig, opts.TLSTimeout = true, cfg.TLS.Clone(), server.TLS_TIMEOUT.Seconds()
	}
	if cfg.Allows != nil {
		s.inside = rand.Text()
		opts.CustomClientAuthentication = guard{s.inside, cfg.Allows}
	}
	return nil
}

// guard lets those in who have a token, as such or as a password.
type guard struct {
	inside string
	allows func(token string) bool
}

// Check implements [server.Authentication].
func (g guard) Check(c server.ClientAuthentication) bool {
	token := c.GetOpts().Token
	if token == "" {
		token = c.GetOpts().Password
	}
	return subtle.ConstantTimeCompare([]byte(token), []byte(g.inside)) == 1 || g.allows(token)
}

// Addr is where the server listens; nil: it does not.
func (s *Server) Addr() net.Addr { return s.server.Addr() }

// Options are those of a connection from within the process.
func (s *Server) Options() []nats.Option {
	opts := []nats.Option{nats.InProcessServer(s.server)}
	if s.inside != "" {
		opts = append(opts, nats.Token(s.inside))
	}
	return opts
}
