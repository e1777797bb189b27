package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/cmd/stile/internal/bench"
	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
)

type benchFlags struct {
	bench.Config
	sizes    []string
	headers  []string
	data     string
	protoset string
	svg      string
	json     bool
}

func newBench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what a call costs over each way it can go, and say which to use",
		Long: `Bench calls a service over shared memory, Stile's unix socket and gRPC, in turns,
and compares latency, CPU time and context switches by size and number of
callers. It says which way to use and why.

It measures all ways, whatever STILE and STILE_TRANSPORT are set to.

Without --target it calls an echo service, for which it starts two servers of its
own. With --target and --method it calls yours, which must be reachable without
TLS: it makes many thousand calls, each with all its effects. Messages are
described by the server's reflection service, or by --protoset.

The result goes to standard output, all else to standard error. Let nothing else
run meanwhile.

Exit codes: 0 the way that Stile takes is the best everywhere, 1 another is
better somewhere, 2 a mistake in the command line, 3 a failure.`,
		Example: `  stile bench
  stile bench --sizes 64,4KiB --callers 1,256 --svg cost.svg
  stile bench --target localhost:50051 --method shop.v1.Catalog/Get --data '{"id":"42"}'
  stile bench --target localhost:50051 --method shop.v1.Catalog/Get --data @request.json --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.Progress = cmd.ErrOrStderr()
			changed := cmd.Flags().Changed
			switch {
			case changed("target") && f.Target == "":
				return usageError{errors.New("the --target is empty")}
			case changed("method") && changed("sizes"):
				return usageError{errors.New("--sizes are of the echo; your method's message is --data")}
			}
			return runBench(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.Target, "target", "", "what a client of your service dials, such as localhost:50051; echo servers of its own if not given")
	flags.StringVar(&f.Method, "method", "", "`package.Service/Method` to call there; the echo of stile bench serve if not given")
	flags.StringVar(&f.data, "data", "", "its message as `JSON`, several one after the other for a client stream; @FILE reads a file, @- standard input")
	flags.StringVar(&f.protoset, "protoset", "", "`file` with the descriptors (protoc --descriptor_set_out --include_imports), for servers without reflection")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "metadata as `'name: value'`; may be repeated")
	flags.StringVar(&f.Dir, "dir", "", "`folder` of the local doors, if the client uses stile.WithDir")
	flags.IntSliceVar(&f.UIDs, "allow-uid", nil, "user `id` that the server may have, if the client uses stile.WithAllowUIDs; may be repeated")
	flags.StringSliceVar(&f.sizes, "sizes", []string{"64", "1KiB", "64KiB"}, "`bytes` of the echo, each way")
	flags.IntSliceVar(&f.Callers, "callers", []int{1, 8, 64}, "`numbers` of callers at once")
	flags.IntVar(&f.Rounds, "rounds", 3, "rounds")
	flags.DurationVar(&f.Window, "window", 300*time.Millisecond, "how long each way is measured in each cell of each round")
	flags.DurationVar(&f.Reply, "timeout", 10*time.Second, "how long a call may take")
	flags.StringVar(&f.svg, "svg", "", "`file` for a picture of the result")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	cmd.AddCommand(newBenchServe())
	return cmd
}

func runBench(ctx context.Context, stdin io.Reader, w io.Writer, f benchFlags) error {
	if err := f.check(stdin); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f.Self = []string{self}
	f.Live = terminal.For(f.Progress).On()
	// All ways are measured, whatever the environment says.
	for _, name := range []string{"STILE_TRANSPORT", "STILE"} {
		if value := os.Getenv(name); value != "" && value != "on" && value != "shm" {
			f.Environment = name + "=" + value
		}
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	picture, err := newPicture(f.svg)
	if err != nil {
		return usageError{err}
	}
	defer picture.abandon()
	result, err := bench.Run(ctx, f.Config)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, bench.ErrMethod):
		return usageError{err}
	case err != nil:
		return err
	}
	if f.json {
		err = printJSON(w, result)
	} else {
		_, err = io.WriteString(w, "\n"+result.Table(terminal.For(w)))
	}
	if err == nil {
		err = picture.write(result.SVG())
	}
	if err == nil && len(result.Advice.Findings) > 0 {
		err = errFinding
	}
	return err
}

// picture is a file that is written whole or not at all, and known to be writable
// before anything is measured.
type picture struct {
	name string
	file *os.File // nil: none is asked for, or it is done
}

func newPicture(name string) (*picture, error) {
	if name == "" {
		return &picture{}, nil
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("--svg %s is no file", name)
	}
	file, err := os.CreateTemp(filepath.Dir(name), ".stile-*.svg")
	if err != nil {
		return nil, fmt.Errorf("--svg: %w", err)
	}
	return &picture{name, file}, nil
}

func (p *picture) write(text string) error {
	if p.file == nil {
		return nil
	}
	_, err := p.file.WriteString(text)
	if err == nil {
		err = p.file.Chmod(0o644)
	}
	if closed := p.file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(p.file.Name(), p.name)
	}
	if err != nil {
		_ = os.Remove(p.file.Name())
	}
	p.file = nil
	return err
}

// abandon leaves nothing behind, if nothing was written.
func (p *picture) abandon() {
	if p.file != nil {
		_ = p.file.Close()
		_ = os.Remove(p.file.Name())
	}
}

// check completes the configuration, or says what is wrong with it.
func (f *benchFlags) check(stdin io.Reader) (err error) {
	usage := func(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }
	switch {
	case f.Target == "" && (f.Method != "" || f.data != "" || f.protoset != "" || f.headers != nil || f.Dir != "" || f.UIDs != nil):
		return usage("--method, --data, --protoset, --header, --dir and --allow-uid say how to call a server: tell which with --target")
	case f.Method == "" && (f.data != "" || f.protoset != ""):
		return usage("--data and --protoset belong to a method: tell which with --method")
	case f.Rounds < 1 || f.Rounds > 1000:
		return usage("--rounds is %d; it must be from 1 to 1000", f.Rounds)
	case f.Window < 10*time.Millisecond || f.Window > time.Minute:
		return usage("--window is %v; it must be from 10ms to 1m", f.Window)
	case f.Reply <= 0:
		return usage("--timeout is %v; it must be more than 0", f.Reply)
	case len(f.Callers) == 0 || len(f.sizes) == 0:
		return usage("--callers and --sizes must not be empty")
	}
	f.Callers = unique(f.Callers)
	for _, n := range f.Callers {
		if n < 1 || n > bench.MaxCallers {
			return usage("--callers has %d; it must be from 1 to %d", n, bench.MaxCallers)
		}
	}
	for _, uid := range f.UIDs {
		if uid < 0 {
			return usage("--allow-uid is %d; a user id is not negative", uid)
		}
	}
	for _, text := range f.sizes {
		n, err := sizeOf(text)
		if err != nil || n > bench.MaxSize {
			return usage("--sizes has %q; it must be from 0 to %d bytes, such as 64 or 4KiB", text, bench.MaxSize)
		}
		f.Sizes = append(f.Sizes, int(n))
	}
	for _, text := range f.headers {
		name, value, ok := strings.Cut(text, ":")
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			return usage("--header is %q; it must be 'name: value', the name of letters, digits, - _ and .", text)
		}
		f.Header = append(f.Header, name, strings.TrimSpace(value))
	}
	if f.protoset != "" {
		if f.Protoset, err = os.ReadFile(f.protoset); err != nil {
			return usage("--protoset: %w", err)
		}
	}
	f.Data = []byte(f.data)
	if file, ok := strings.CutPrefix(f.data, "@"); ok {
		switch file {
		case "":
			return usage("--data @ names no file; @- is standard input")
		case "-":
			f.Data, err = io.ReadAll(stdin)
		default:
			f.Data, err = os.ReadFile(file)
		}
	}
	if err != nil {
		return usage("--data: %w", err)
	}
	return nil
}

// unique drops what has come before.
func unique(list []int) []int {
	var kept []int
	for _, n := range list {
		if !slices.Contains(kept, n) {
			kept = append(kept, n)
		}
	}
	return kept
}

// sizeOf reads "64", "4KiB" or "1MiB".
func sizeOf(text string) (uint64, error) {
	scale := uint64(1)
	for unit, n := range map[string]uint64{"KiB": 1 << 10, "MiB": 1 << 20} {
		if rest, ok := strings.CutSuffix(text, unit); ok {
			text, scale = strings.TrimSpace(rest), n
		}
	}
	n, err := strconv.ParseUint(text, 10, 31)
	return n * scale, err
}

func newBenchServe() *cobra.Command {
	var plain, asJSON, untilEOF bool
	var dir string
	var uids []int
	cmd := &cobra.Command{
		Use:   "serve ADDRESS...",
		Short: "Answer the echo calls of a stile bench elsewhere",
		Long: `Serve is the other end of stile bench --target, for two containers or two hosts:
it answers echo calls at each ADDRESS, host:port, unix:///path or
unix-abstract:name, until it is interrupted. It asks nobody who they are: listen where only you can call.`,
		Example: `  stile bench serve unix:///shared/echo.sock
  stile bench --target unix:///shared/echo.sock`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("serve needs an ADDRESS, such as 127.0.0.1:50051 or unix:///shared/echo.sock")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			if untilEOF {
				go func() {
					_, _ = io.Copy(io.Discard, cmd.InOrStdin())
					cancel()
				}()
			}
			var opts []grpc.ServerOption
			if dir != "" {
				opts = append(opts, stile.Dir(dir))
			}
			for _, uid := range uids {
				if uid < 0 {
					return usageError{fmt.Errorf("--allow-uid is %d; a user id is not negative", uid)}
				}
				opts = append(opts, stile.AllowUIDs(uid))
			}
			return bench.Serve(ctx, args, plain, opts, func(l bench.Listening) error {
				if asJSON {
					return printJSON(cmd.OutOrStdout(), l)
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "stile bench --target %s\n", strings.Join(l.Addresses, "\nstile bench --target "))
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&plain, "plain", false, "serve with grpc-go alone")
	flags.BoolVar(&asJSON, "json", false, "print the addresses as JSON")
	flags.StringVar(&dir, "dir", "", "`folder` of the local doors, as for stile.Dir")
	flags.IntSliceVar(&uids, "allow-uid", nil, "user `id` that clients may have, as for stile.AllowUIDs; may be repeated")
	flags.BoolVar(&untilEOF, "until-eof", false, "end when standard input does")
	_ = flags.MarkHidden("until-eof") // it exists
	return cmd
}
