package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/internal/xdg"
	"github.com/stile-ipc/stile/routemap"
)

// closeWithin is how long requests that are under way are waited for.
const closeWithin = 10 * time.Second

func newHub() *cobra.Command {
	var cfg hub.Config
	var who accessFlags
	var to forwardFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Take traces and metrics from exporters, and keep maps of them",
		Long: `Hub listens for OpenTelemetry's OTLP and makes maps of the traces and calls' metrics that come, which it keeps for
hours, days and months in one folder. stile map shows them, of now and of any time since.

With --forward all traces and metrics go on as they came, to a collector or another hub: over HTTP
(http, https) or gRPC (grpc, grpcs). What it cannot take waits in memory; then the oldest is dropped.

It listens on this host's loopback alone. Another address needs --tokens, and TLS; a file of
tokens has one a line, "write TOKEN" for those who send, "read TOKEN" for those who ask, and
"operate TOKEN NAME" for those who also redrive and discard dead letters.

Exit codes: 0 ended by a signal, 2 a mistake in the command line, 3 a failure.`,
		Example: `  stile hub
  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 ./catalog   # any service with an OTLP exporter
  stile map http://localhost:4319
  stile hub --nats 127.0.0.1:4222   # and queues, with no other service
  stile hub --http 0.0.0.0:4319 --tokens tokens --tls-cert cert.pem --tls-key key.pem
  stile hub --forward grpcs://collector:4317 --forward-headers headers`,
		Args: between(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Dir == "" {
				if cfg.Dir, err = hubDir(); err != nil {
					return err
				}
			}
			if listensNowhere(&cfg) {
				return usageError{errors.New("the hub would listen nowhere: leave out one of --otlp-grpc off, --otlp-http off and --http off, or give --socket or --nats")}
			}
			if cfg.MaxBytes < 1 || cfg.Spans < 1 || cfg.NATSMaxBytes < 1 {
				return usageError{errors.New("--max-bytes, --spans and --nats-max-bytes have to be 1 or more")}
			}
			if cfg.NATSCreds != "" && cfg.NATSURL == "" {
				return usageError{errors.New("--nats-creds is of use with --nats-url only")}
			}
			if cfg.NATSCreds != "" {
				creds, err := openSecret(cfg.NATSCreds)
				if err != nil {
					return err
				}
				creds.Close() // they are read at each connection
			}
			if err := who.read(&cfg); err != nil {
				return err
			}
			if cfg.Forward, err = to.forward(); err != nil {
				return err
			}
			cfg.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return runHub(cmd.Context(), cfg, cmd.OutOrStdout(), asJSON)
		},
	}
	flags := cmd.Flags()
	flags.Var((*folder)(&cfg.Dir), "dir", "`folder` (default $XDG_STATE_HOME/stile/hub, or ~/.local/state/stile/hub)")
	flags.StringVar(&cfg.OTLPGRPC, "otlp-grpc", hub.DefaultOTLPGRPC, "`address` for OTLP over gRPC, or off")
	flags.StringVar(&cfg.OTLPHTTP, "otlp-http", hub.DefaultOTLPHTTP, "`address` for OTLP over HTTP, or off")
	flags.StringVar(&cfg.HTTP, "http", hub.DefaultHTTP, "`address` for those who ask, or off")
	flags.StringVar(&cfg.Socket, "socket", "", "`path` of a unix socket, of this user alone, for OTLP over gRPC and what processes count, besides --otlp-grpc")
	flags.StringVar(&cfg.NATS, "nats", hub.Off, "`address` for a NATS server with JetStream, in the hub's folder, such as 127.0.0.1:4222")
	flags.Int64Var(&cfg.NATSMaxBytes, "nats-max-bytes", hub.DefaultNATSMaxBytes, "how many `bytes` all its topics may keep, what they may and have not included")
	flags.StringVar(&cfg.NATSURL, "nats-url", "", "`URL` of NATS servers elsewhere, whose topics are to be seen and mended, too")
	flags.StringVar(&cfg.NATSCreds, "nats-creds", "", "`file` with credentials for --nats-url, which nobody else may read")
	flags.Int64Var(&cfg.MaxBytes, "max-bytes", hub.DefaultMaxBytes, "how many `bytes` the file of maps and traces may have")
	flags.IntVar(&cfg.Spans, "spans", routemap.DefaultSpans, "how `many` spans to hold until their traces are complete")
	who.add(cmd)
	to.add(cmd)
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(newHubStatus(), newHubProcesses(), newHubEvents(), newHubPolicies(), newHubQueues())
	return cmd
}

// folder is the flag of a hub's folder: one that is given has a name, which an unset variable has not.
type folder string

func (f *folder) Set(name string) error {
	if name == "" {
		return errors.New("it names no folder; without --dir it is the default one")
	}
	*f = folder(name)
	return nil
}

func (f *folder) String() string { return string(*f) }
func (f *folder) Type() string   { return "folder" }

// accessFlags say who may come, and how.
type accessFlags struct{ tokens, cert, key string }

func (f *accessFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.tokens, "tokens", "", "`file` of tokens, which nobody else may read")
	flags.StringVar(&f.cert, "tls-cert", "", "`file` with the certificate, PEM")
	flags.StringVar(&f.key, "tls-key", "", "`file` with its key, PEM")
}

// read reads the files that they name.
func (f *accessFlags) read(cfg *hub.Config) (err error) {
	if (f.cert == "") != (f.key == "") {
		return usageError{errors.New("--tls-cert and --tls-key go together")}
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return err
		}
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	if f.tokens != "" {
		cfg.Tokens, err = readTokens(f.tokens)
	}
	return err
}

func listensNowhere(cfg *hub.Config) bool {
	return cfg.OTLPGRPC == hub.Off && cfg.OTLPHTTP == hub.Off && cfg.HTTP == hub.Off && (cfg.NATS == hub.Off || cfg.NATS == "") && cfg.Socket == ""
}

func runHub(ctx context.Context, cfg hub.Config, out io.Writer, asJSON bool) error {
	h, err := hub.Open(ctx, cfg)
	if err != nil {
		return explainedHub(err)
	}
	addrs := filepath.Join(cfg.Dir, addressesFile)
	err = writeAddresses(addrs, h, cfg.TLS != nil)
	if err == nil {
		err = sayAddresses(out, h, cfg.TLS != nil, asJSON)
	}
	if err == nil {
		<-ctx.Done()
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer cancel()
	return errors.Join(err, os.Remove(addrs), h.Close(within))
}

// explainedHub says what to do.
func explainedHub(err error) error {
	switch {
	case errors.Is(err, hub.ErrInUse):
		return fmt.Errorf("%w: stile hub status asks it; --dir names another folder", err)
	case strings.Contains(err.Error(), "address already in use"):
		return fmt.Errorf("%w: another hub or collector may run; --otlp-grpc, --otlp-http, --http and --nats take other addresses, or off", err)
	}
	return err
}

// addressesFile tells where a hub listens, while it runs.
const addressesFile = "addresses.json"

func writeAddresses(path string, h *hub.Hub, tls bool) error {
	text, err := json.Marshal(hubURLs(h, tls))
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// hubURLs is where a hub listens, by what for.
func hubURLs(h *hub.Hub, tls bool) map[string]string {
	scheme := "http://"
	if tls {
		scheme = "https://"
	}
	all := h.Addrs()
	for what, at := range all {
		if strings.HasPrefix(at, "/") {
			all[what] = "unix://" + at
			continue
		}
		if host, port, err := net.SplitHostPort(at); err == nil && net.ParseIP(host).IsUnspecified() {
			at = net.JoinHostPort("localhost", port) // one of those that it is
		}
		if what == hub.ForNATS {
			all[what] = map[bool]string{false: "nats://", true: "tls://"}[tls] + at
			continue
		}
		all[what] = scheme + at
	}
	return all
}

func sayAddresses(out io.Writer, h *hub.Hub, tls, asJSON bool) error {
	urls := hubURLs(h, tls)
	if asJSON {
		return printJSON(out, urls)
	}
	for _, what := range slices.Sorted(maps.Keys(urls)) {
		if _, err := fmt.Fprintf(out, "%-10s %s\n", what, urls[what]); err != nil {
			return err
		}
	}
	if at := urls[hub.ForNATS]; at != "" {
		if _, err := fmt.Fprintf(out, "\nQueues are there with queue.Config{URL: %q}, and stile queue --url %s\n", at, at); err != nil {
			return err
		}
	}
	endpoint := cmp.Or(urls["OTLP/gRPC"], urls["OTLP/HTTP"], urls["socket"])
	if endpoint == "" || urls["API"] == "" {
		return nil
	}
	_, err := fmt.Fprintf(out, "\nServices send what they trace with OTEL_EXPORTER_OTLP_ENDPOINT=%[1]s; a map is there after 20 seconds:\n  stile map %[2]s\nA browser shows it, too: %[2]s/\n", endpoint, urls["API"])
	return err
}

// hubDir is the default folder.
func hubDir() (string, error) {
	state, err := xdg.StateHome()
	if err != nil {
		return "", fmt.Errorf("%w: --dir names the folder", err)
	}
	return filepath.Join(state, "stile", "hub"), nil
}

// openSecret opens a file that nobody else may read.
func openSecret(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		err = fmt.Errorf("%s: others can read it: chmod 600 %s", path, path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readTokens reads lines ROLE TOKEN, or ROLE TOKEN NAME; empty ones and those that begin with # say nothing.
func readTokens(path string) (all []hub.Token, err error) {
	f, err := openSecret(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		words := strings.Fields(line)
		if len(words) != 2 && len(words) != 3 {
			return nil, fmt.Errorf("%s:%d: a line is a role and a token: read, write or operate, a space, and the token; and may have a name", path, n)
		}
		words = append(words, "")
		all = append(all, hub.Token{Role: hub.Role(words[0]), Secret: words[1], Name: words[2]})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no tokens", path)
	}
	return all, nil
}

func newHubStatus() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [URL]",
		Short: "Tell what a hub takes in, leaves out and keeps",
		Long: `Status asks a hub what it has taken in since it began, what it has left out and why, and what it
keeps. Without a URL the hub of the folder is asked. A hub with tokens wants one that reads, in
STILE_HUB_TOKEN.

Exit codes: 0 all is well, 1 the hub cannot keep what it has now, 2 a mistake in the command line,
3 it could not be asked.`,
		Example: `  stile hub status
  stile hub status https://hub.internal:4319 --json`,
		Args: between(0, 1, "no more than one URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := hubAt(dir, args)
			if err != nil {
				return err
			}
			var s hub.Status
			if err := askHub(cmd.Context(), at, "status", &s); err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), s)
			} else {
				err = printHubStatus(cmd.OutOrStdout(), &s)
			}
			if err == nil && s.Failing+s.Untidy+s.NATS != "" {
				err = errFinding
			}
			return err
		},
	}
	cmd.Flags().Var((*folder)(&dir), "dir", "`folder` of the hub, instead of a URL")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// hubAt is where to ask: a URL that was given, or that of the hub that has a folder.
func hubAt(dir string, args []string) (string, error) {
	if len(args) == 1 {
		if dir != "" {
			return "", usageError{errors.New("--dir is for the hub of a folder, and this is a URL: give one of both")}
		}
		if !isURL(args[0]) {
			return "", usageError{fmt.Errorf("%q is no URL: http://localhost:4319 would be", args[0])}
		}
		return args[0], nil
	}
	if dir == "" {
		var err error
		if dir, err = hubDir(); err != nil {
			return "", err
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, addressesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no hub runs on %s: start it with stile hub, or give the URL of another", dir)
	}
	if err != nil {
		return "", err
	}
	var urls map[string]string
	if err := json.Unmarshal(text, &urls); err != nil || urls["API"] == "" {
		return "", fmt.Errorf("%s does not say where the hub's API is", filepath.Join(dir, addressesFile))
	}
	return urls["API"], nil
}

func printHubStatus(out io.Writer, s *hub.Status) error {
	b := bufio.NewWriter(out)
	fmt.Fprintf(b, "since %s: %d spans of %d requests, %d held until their traces are complete\n", s.Began.Local().Format(time.DateTime), s.Intake.Spans, s.Intake.Requests, s.Intake.Held)
	reasons := func(what string, counts map[string]uint64) {
		for _, why := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(b, "%s: %d, %s\n", what, counts[why], why)
		}
	}
	reasons("left out", s.Intake.LeftOut)
	reasons("requests refused", s.Intake.Refused)
	if m := s.Metrics; m.Points+m.Others > 0 || len(m.LeftOut) > 0 {
		fmt.Fprintf(b, "%d data points of calls, of %d series now; %d of something else, which are not kept\n", m.Points, m.Series, m.Others)
		reasons("data points left out", m.LeftOut)
	}
	lost := func(n uint64, what string) {
		if n > 0 {
			fmt.Fprintf(b, "%d %s\n", n, what)
		}
	}
	lost(s.Metrics.Together, "calls of metrics are of one route, other, as windows had no room for more")
	if f := s.Forward; f != nil {
		fmt.Fprintf(b, "forwarded to %s: %d requests, %d bytes; %d wait\n", f.To, f.Sent, f.Size, f.Waiting)
		reasons("not forwarded", f.Dropped)
		if f.Rejected > 0 {
			fmt.Fprintf(b, "left out there: %d spans and data points\n", f.Rejected)
		}
		if f.Failing != "" {
			fmt.Fprintf(b, "cannot be forwarded now: %s\n", f.Failing)
		}
	}
	fmt.Fprintf(b, "processes that report: %d, with %d windows and %d spans of traced calls\n", s.Agents.Processes, s.Agents.Reports, s.Agents.Spans)
	lost(s.Agents.SpansLost, "spans of traced calls were lost for want of room in their processes")
	lost(s.Agents.RoutesLost, "routes were lost for want of room in their processes")
	lost(s.Agents.Unrecorded, "windows of processes of which it is not kept what was in force and when calls came: there was no room, or a clock was off")
	lost(s.Agents.Lost, "events were lost for want of room, here or in their processes")
	lost(s.Agents.Unsampled, "samples of what processes used were left out: a clock was off, or there was no room")
	lost(s.Agents.LeftOut, "times there was no room for the policies of a process")
	lost(s.Agents.NoRoom, "times there was no room for a queue that was told of")
	reasons("beyond what a map of a window tells apart", s.Folded)
	fmt.Fprintf(b, "/metrics tells of %d routes, of %d that it tells apart\n", s.Totals.Routes, s.Totals.Most)
	lost(s.Totals.Gone, "routes are not there any more, as nobody called them for long")
	lost(s.Totals.Together, "calls are there as those of one route, other, for want of room")
	fmt.Fprintf(b, "kept: %d windows, %d of %d bytes\n", s.Store.Windows, s.Store.Bytes, s.Store.Most)
	fmt.Fprintf(b, "whole traces: %d of %d\n", s.Store.Traces, s.Store.Seen)
	if s.NATS != "" {
		fmt.Fprintf(b, "NATS elsewhere cannot be asked: %s\n", s.NATS)
	}
	if s.Failing != "" {
		fmt.Fprintf(b, "what comes is held in memory, for it cannot be kept: %s\n", s.Failing)
	}
	if s.Untidy != "" {
		fmt.Fprintf(b, "windows are not made longer, or not taken away: %s\n", s.Untidy)
	}
	return b.Flush()
}
