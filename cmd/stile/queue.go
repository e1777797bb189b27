package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/queue"
)

// queueFlags are those of several commands.
type queueFlags struct {
	dir, url, creds string
	json            bool

	sources, importPaths []string // of .proto files

	id, reason, key string // of dead letters
	upTo            uint64 // their last sequence
}

func newQueue() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look into queues, and mend what is stuck",
		Long: `Queues are topics that package queue keeps: in a folder, by a server embedded in one of the
processes that use it, or on NATS servers. --dir names the folder, or --url the servers;
the default is in STILE_QUEUE, as either.

A process that has the folder open is asked; if there is none, the command opens it for
as long as it runs.`,
		Example: `  stile queue ls --dir data/queue
  stile queue stats orders.placed --dir data/queue
  stile queue peek orders.placed mailer --proto ./proto
  stile queue redrive orders.placed mailer --reason unreadable
  stile queue drain orders.placed mailer --timeout 1m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newQueueLs(), newQueueStats(), newQueuePeek(), newQueuePublish(), newQueueRedrive(), newQueueDiscard(), newQueueDrain())
	return cmd
}

// queueCommand makes a command that has a queue.
func queueCommand(f *queueFlags, cmd *cobra.Command, run func(ctx context.Context, q *queue.Queue, out io.Writer, args []string) error) *cobra.Command {
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", "", "`folder` of the queue")
	flags.StringVar(&f.url, "url", "", "`URL` of NATS servers, parted by commas, or unix: and a folder")
	flags.StringVar(&f.creds, "creds", "", "`file` with credentials for --url")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		q, err := f.open(cmd.Context(), cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, q.Close()) }()
		return run(cmd.Context(), q, cmd.OutOrStdout(), args)
	}
	return cmd
}

func (f *queueFlags) addProtos(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.sources, "proto", nil, "`path` of a .proto file, a folder of them, or a descriptor set, to read messages; may be repeated")
	cmd.Flags().StringArrayVar(&f.importPaths, "import-path", nil, "`folder` in which .proto files look for imports; may be repeated")
}

func (f *queueFlags) addFilter(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.id, "id", "", "only the dead letter with this message `ID`")
	cmd.Flags().StringVar(&f.reason, "reason", "", "only dead letters with this `reason`, such as attempts or unreadable")
	cmd.Flags().StringVar(&f.key, "key", "", "only dead letters with this `key`")
	cmd.Flags().Uint64Var(&f.upTo, "up-to", math.MaxUint64, "only dead letters up to this `sequence`, as peek shows it: none that has died since")
	cmd.Flags().Lookup("up-to").DefValue = "0" // so that help does not show it
}

// wanted is the filter of a command line.
func (f *queueFlags) wanted(l *queue.DeadLetter) bool {
	return (f.id == "" || l.ID == f.id) && (f.reason == "" || l.Reason == f.reason) && (f.key == "" || l.Key == f.key) && l.Sequence <= f.upTo
}

// openWithin is how long a folder may be on its way from one process to another.
const openWithin = 3 * time.Second

// open connects to a process that has the folder open, or opens it, or connects to servers.
func (f *queueFlags) open(ctx context.Context, stderr io.Writer) (*queue.Queue, error) {
	if f.dir == "" && f.url == "" {
		if where := os.Getenv("STILE_QUEUE"); strings.Contains(where, "://") {
			f.url = where
		} else {
			f.dir = where
		}
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	switch {
	case f.dir == "" && f.url == "":
		return nil, usageError{errors.New("say where the queue is: --dir FOLDER, --url URL, or STILE_QUEUE")}
	case f.dir != "" && f.url != "":
		return nil, usageError{errors.New("--dir and --url are of two queues: give one")}
	case f.url != "":
		return queue.Open(ctx, queue.Config{URL: f.url, Creds: f.creds, Logger: log})
	case f.creds != "":
		return nil, usageError{errors.New("--creds is of use with --url only")}
	}
	info, err := os.Stat(filepath.Join(f.dir, "redo"))
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%s: a queue is for the user alone whose program has it: %w", f.dir, err)
	}
	if err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s: no queue is there: a program makes one with queue.Open", f.dir)
	}
	for end := time.Now().Add(openWithin); ; {
		q, err := queue.Open(ctx, queue.Config{URL: "unix:" + f.dir, Logger: log})
		if errors.Is(err, queue.ErrAway) {
			q, err = queue.Open(ctx, queue.Config{Dir: f.dir, Logger: log})
		}
		if !errors.Is(err, queue.ErrInUse) || time.Now().After(end) {
			return q, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func newQueueLs() *cobra.Command {
	var f queueFlags
	return queueCommand(&f, &cobra.Command{
		Use:     "ls",
		Short:   "List topics",
		Example: `  stile queue ls --dir data/queue --json`,
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, q *queue.Queue, out io.Writer, _ []string) error {
		all, err := q.Topics(ctx)
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(out, all)
		}
		return printTopics(out, all)
	})
}

// groupStats is one line of stats.
type groupStats struct {
	Group string `json:"group"`
	queue.Stats
}

func newQueueStats() *cobra.Command {
	var f queueFlags
	return queueCommand(&f, &cobra.Command{
		Use:   "stats TOPIC [GROUP]",
		Short: "Tell how a topic's groups are doing",
		Long: `Stats tells of each group of a topic, or of one: lag, messages that were never delivered to
it; in flight, delivered and not done with; retrying, those of them that were delivered
more than once; waiting, those that wait longer than a minute for their next attempt, and are
not in flight meanwhile; delayed, the topic's messages that are not due yet; dead letters; and
how old the oldest message is that was delivered, or is to be, and is not done with.`,
		Example: `  stile queue stats orders.placed --dir data/queue
  stile queue stats orders.placed mailer --url nats://127.0.0.1:4222 --json`,
		Args: between(1, 2, "a TOPIC, and may have a GROUP"),
	}, func(ctx context.Context, q *queue.Queue, out io.Writer, args []string) error {
		groups := args[1:]
		if len(groups) == 0 {
			t, err := q.Topic(ctx, args[0])
			if err != nil {
				return err
			}
			groups = t.Groups
		}
		all := []groupStats{}
		for _, g := range groups {
			st, err := q.GroupStats(ctx, args[0], g)
			if err != nil {
				return err
			}
			all = append(all, groupStats{g, st})
		}
		if f.json {
			return printJSON(out, all)
		}
		return printStats(out, all)
	})
}

func newQueuePeek() *cobra.Command {
	var f queueFlags
	var from uint64
	var most int
	cmd := &cobra.Command{
		Use:   "peek TOPIC [GROUP]",
		Short: "Show messages of a topic, or a group's dead letters",
		Long: `Peek shows a topic's messages, the oldest first, and takes none away. With a GROUP it shows
the group's dead letters, with the reason why they died. What is in a message can be shown
with its .proto files.`,
		Example: `  stile queue peek orders.placed --dir data/queue -n 3 --proto ./proto
  stile queue peek orders.placed mailer --dir data/queue --reason unreadable --json`,
		Args: between(1, 2, "a TOPIC, and may have a GROUP"),
	}
	cmd.Flags().Uint64Var(&from, "from", 1, "first `sequence` to show of a topic")
	cmd.Flags().IntVarP(&most, "number", "n", 10, "how `many` to show")
	f.addFilter(cmd)
	f.addProtos(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		flags := cmd.Flags()
		switch {
		case len(args) == 2 && flags.Changed("from"):
			return usageError{errors.New("--from is of a topic's messages, not of a GROUP's dead letters")}
		case len(args) == 1 && (flags.Changed("id") || flags.Changed("reason") || flags.Changed("key") || flags.Changed("up-to")):
			return usageError{errors.New("--id, --reason, --key and --up-to choose among dead letters: give a GROUP")}
		}
		return atLeastOne("number", most)
	}
	return queueCommand(&f, cmd, func(ctx context.Context, q *queue.Queue, out io.Writer, args []string) error {
		types, err := messageTypes(ctx, f.sources, f.importPaths)
		if err != nil {
			return err
		}
		var all []shownMessage
		if len(args) == 2 {
			dead, err := q.DeadLetters(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			letters, err := dead.List(ctx, most, f.wanted)
			if err != nil {
				return err
			}
			for _, l := range letters {
				all = append(all, showDead(types, l))
			}
		} else {
			ms, err := q.Peek(ctx, args[0], from, most)
			if err != nil {
				return err
			}
			for _, m := range ms {
				all = append(all, showRaw(types, m))
			}
		}
		if f.json {
			return printJSON(out, append([]shownMessage{}, all...))
		}
		return printMessages(out, all)
	})
}

func newQueuePublish() *cobra.Command {
	var f queueFlags
	var data, id, key string
	cmd := &cobra.Command{
		Use:   "publish TOPIC",
		Short: "Publish a message",
		Long: `Publish stores one message in a topic, and returns when it is on disk, where that can be
had. The message is JSON as protobuf has it; its type is the topic's, which --proto must have.`,
		Example: `  stile queue publish orders.placed --dir data/queue --proto ./proto --data '{"orderId": "7"}'
  stile queue publish orders.placed --dir data/queue --proto ./proto --data @order.json --id order-7`,
		Args: between(1, 1, "a TOPIC alone; the message is in --data"),
	}
	cmd.Flags().StringVar(&data, "data", "{}", "the message as `JSON`; @file reads a file, @- the standard input")
	cmd.Flags().StringVar(&id, "id", "", "`ID` of the message: within two minutes it is stored once")
	cmd.Flags().StringVar(&key, "key", "", "`key` of the message, if the topic's publishers have keys; without one it has no order")
	f.addProtos(cmd)
	return queueCommand(&f, cmd, func(ctx context.Context, q *queue.Queue, out io.Writer, args []string) error {
		types, err := messageTypes(ctx, f.sources, f.importPaths)
		if err != nil {
			return err
		}
		t, err := q.Topic(ctx, args[0])
		if err != nil {
			return err
		}
		body, err := encode(types, t.Type, data)
		if err != nil {
			return usageError{err}
		}
		r, err := q.PublishRaw(ctx, args[0], queue.RawMsg{ID: id, Key: key, Data: body})
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(out, r)
		}
		twice := ""
		if r.Duplicate {
			twice = ", which was there already"
		}
		_, err = fmt.Fprintf(out, "%s has message %s at %d%s\n", r.Topic, plain(r.ID), r.Sequence, twice)
		return err
	})
}

func newQueueRedrive() *cobra.Command {
	var f queueFlags
	cmd := &cobra.Command{
		Use:   "redrive TOPIC GROUP",
		Short: "Have a group's dead letters handled again",
		Long: `Redrive publishes dead letters to their topic again, for their group alone, and takes them
away. One that was interrupted can be run again.`,
		Example: `  stile queue redrive orders.placed mailer --dir data/queue --reason attempts`,
		Args:    between(2, 2, "a TOPIC and a GROUP"),
	}
	f.addFilter(cmd)
	return queueCommand(&f, cmd, func(ctx context.Context, q *queue.Queue, out io.Writer, args []string) error {
		dead, err := deadLetters(ctx, q, args)
		if err != nil {
			return err
		}
		return f.eachDead(ctx, dead, f.wanted, out, cmd.ErrOrStderr(), "redriven", (*queue.DeadLetters).Redrive)
	})
}

func newQueueDiscard() *cobra.Command {
	var f queueFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "discard TOPIC GROUP",
		Short: "Take a group's dead letters away for ever",
		Long: `Discard takes dead letters away for ever: those that are there when it begins. It asks first,
if a terminal is there to answer, and says how many there are; what dies until it is answered
stays. Elsewhere --yes has to be given; --up-to has it take nothing that peek has not shown.`,
		Example: `  stile queue discard orders.placed mailer --dir data/queue --id order-7 --yes
  stile queue discard orders.placed mailer --dir data/queue --up-to 12 --yes`,
		Args: between(2, 2, "a TOPIC and a GROUP"),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	f.addFilter(cmd)
	return queueCommand(&f, cmd, func(ctx context.Context, q *queue.Queue, out io.Writer, args []string) error {
		if !yes && !terminal.Is(os.Stdin) {
			return usageError{errors.New("discard takes dead letters away for ever: say --yes")}
		}
		dead, err := deadLetters(ctx, q, args)
		if err != nil {
			return err
		}
		keep := f.wanted
		if !yes {
			if keep, err = f.agreed(ctx, dead, cmd.InOrStdin(), cmd.ErrOrStderr(), args); err != nil {
				return err
			}
		}
		return f.eachDead(ctx, dead, keep, out, cmd.ErrOrStderr(), "discarded", (*queue.DeadLetters).Discard)
	})
}

// agreed asks whether the dead letters that are there now may go, and returns which these are.
func (f *queueFlags) agreed(ctx context.Context, dead *queue.DeadLetters, in io.Reader, stderr io.Writer, args []string) (keep func(*queue.DeadLetter) bool, err error) {
	n, last := 0, uint64(0)
	if _, err := dead.List(ctx, 1, func(l *queue.DeadLetter) bool {
		if f.wanted(l) {
			n, last = n+1, l.Sequence
		}
		return false // it is looked at, and not listed
	}); err != nil {
		return nil, err
	}
	if n > 0 {
		fmt.Fprintf(stderr, "Dead letters of topic %s, group %s: take %d away for ever? [y/N] ", args[0], args[1], n)
		if line, _ := bufio.NewReader(in).ReadString('\n'); !strings.HasPrefix(strings.ToLower(line), "y") {
			return nil, errors.New("nothing was discarded")
		}
	}
	return func(l *queue.DeadLetter) bool { return l.Sequence <= last && f.wanted(l) }, nil
}

// deadLetters are those of a topic and a group that has subscribed.
func deadLetters(ctx context.Context, q *queue.Queue, args []string) (*queue.DeadLetters, error) {
	if _, err := q.GroupStats(ctx, args[0], args[1]); err != nil {
		return nil, err
	}
	return q.DeadLetters(ctx, args[0], args[1])
}

// eachDead does something with the dead letters that keep wants, and says with how many, each second and also when it could not go on.
func (f *queueFlags) eachDead(ctx context.Context, dead *queue.DeadLetters, keep func(*queue.DeadLetter) bool, out, progress io.Writer, what string, do func(*queue.DeadLetters, context.Context, func(*queue.DeadLetter) bool) (int, error)) error {
	met, told := 0, time.Now()
	n, err := do(dead, ctx, func(l *queue.DeadLetter) bool {
		if !keep(l) {
			return false
		}
		if time.Since(told) >= time.Second {
			told = time.Now()
			fmt.Fprintf(progress, "%d %s\n", met, what)
		}
		met++
		return true
	})
	if f.json {
		return errors.Join(err, printJSON(out, map[string]int{what: n}))
	}
	_, printErr := fmt.Fprintf(out, "%d %s\n", n, what)
	return errors.Join(err, printErr)
}

func newQueueDrain() *cobra.Command {
	var f queueFlags
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "drain TOPIC GROUP",
		Short: "Wait until a group has handled all that a topic has",
		Long: `Drain waits until nothing of a topic is left for a group: no message that was not delivered
to it, none that is not done with, also if it waits long for its next attempt, and none that
is not due yet. It changes nothing: publishers must have stopped, or gone elsewhere.

Exit codes: 0 nothing is left, 1 something was when the time was over, 2 a mistake in the
command line, 3 a failure.`,
		Example: `  stile queue drain orders.placed mailer --dir data/queue --timeout 1m`,
		Args:    between(2, 2, "a TOPIC and a GROUP"),
	}
	cmd.Flags().DurationVar(&limit, "timeout", 0, "how long to wait; 0: as long as it takes")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if limit < 0 {
			return usageError{errors.New("--timeout cannot be negative")}
		}
		return nil
	}
	return queueCommand(&f, cmd, func(ctx context.Context, q *queue.Queue, out io.Writer, args []string) error {
		st, err := drained(ctx, q, args[0], args[1], limit, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		if f.json {
			err = printJSON(out, groupStats{args[1], st})
		} else {
			err = printStats(out, []groupStats{{args[1], st}})
		}
		if err == nil && st.Left() > 0 {
			err = errFinding
		}
		return err
	})
}

// drained waits until nothing is left, or limit is over, and says how it goes on.
func drained(ctx context.Context, q *queue.Queue, topic, group string, limit time.Duration, stderr io.Writer) (queue.Stats, error) {
	begin, told := time.Now(), time.Now()
	for {
		st, err := q.GroupStats(ctx, topic, group)
		if err != nil || st.Left() == 0 || limit > 0 && time.Since(begin) >= limit {
			return st, err
		}
		if time.Since(told) >= time.Second {
			told = time.Now()
			fmt.Fprintf(stderr, "%d to be delivered, %d in flight, %d waiting, %d delayed\n", st.Lag, st.InFlight, st.Waiting, st.Delayed)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
}

// between wants some arguments, which what names.
func between(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("%s needs %s", cmd.Name(), what)
		}
		return nil
	}
}
