// Package fakeshop stands in for the shop's six programs where the real ones,
// which are another module's, are too much: it is made of copies of a test's own
// executable, listens as they do, and answers as the gateway does.
package fakeshop

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Programs are the names of the shop's programs.
var Programs = []string{"catalog", "inventory", "pricing", "mailer", "orders", "gateway"}

// What programs do wrong is asked for in the environment, as names of programs
// separated by commas.
const (
	Failing = "FAKESHOP_FAILING" // end with status 1 before they listen
	Mute    = "FAKESHOP_MUTE"    // print something other than a ready line
	Deaf    = "FAKESHOP_DEAF"    // do not end when told to
	Dying   = "FAKESHOP_DYING"   // end with status 1 a second after they listen
	Refuse  = "FAKESHOP_REFUSE"  // as the gateway with this value of STILE, answer orders with 503
)

// Helpless, set to on, has the gateway with a policy suffer from the first fault on, for good: however slow a machine is, that is no better than without.
const Helpless = "FAKESHOP_HELPLESS"

// Install makes folder hold the programs, as links to this process's executable.
func Install(folder string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, name := range Programs {
		if err := os.Symlink(self, filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	return nil
}

// Called reports whether this process was started as one of the programs.
func Called() bool { return slices.Contains(Programs, filepath.Base(os.Args[0])) }

// Main is the main function of all programs. It does not return.
func Main() {
	if err := run(filepath.Base(os.Args[0])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func asked(what, name string) bool {
	return slices.Contains(strings.Split(os.Getenv(what), ","), name)
}

func run(name string) error {
	listen := flag.String("listen", "", "")
	targets := map[string]*string{}
	for _, f := range append([]string{"db", "delay", "data", "queue"}, Programs...) {
		targets[f] = flag.String(f, "", "")
	}
	flag.Parse()
	switch {
	case asked(Failing, name):
		return errors.New("fake failure: the shelf is empty")
	case asked(Mute, name):
		fmt.Println("hello")
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if asked(Deaf, name) {
		ctx = context.Background()
	}
	network, address := split(*listen)
	if network == "unix" {
		_ = os.Remove(address) // a killed program leaves it behind
	}
	lis, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	end, err := joinQueue(ctx, *targets["data"], *targets["queue"])
	if err != nil {
		return err
	}
	defer end()
	srv := &http.Server{Handler: gateway{*targets["catalog"]}}
	go func() { _ = srv.Serve(lis) }()
	if network == "unix" {
		fmt.Println("ready", *listen)
	} else {
		fmt.Println("ready", lis.Addr())
	}
	if asked(Dying, name) {
		<-time.After(time.Second)
		return errors.New("fake death: the roof fell in")
	}
	<-ctx.Done()
	return srv.Shutdown(context.Background())
}

// split returns network and address of host:port or unix:///path.
func split(target string) (network, address string) {
	if path, ok := strings.CutPrefix(target, "unix://"); ok {
		return "unix", path
	}
	return "tcp", target
}

// gateway answers as the gateway; /environment tells what the process was given.
type gateway struct{ catalog string }

func (g gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	switch {
	case r.URL.Path == "/environment":
		fmt.Fprintf(w, "STILE=%s STILE_DIR=%s", os.Getenv("STILE"), os.Getenv("STILE_DIR"))
	case r.Method == http.MethodPost && asked(Refuse, os.Getenv("STILE")):
		http.Error(w, "fake refusal", http.StatusServiceUnavailable)
	case g.suffers():
		http.Error(w, "fake fault", http.StatusServiceUnavailable)
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintln(w, `{"id":"1"}`)
	default:
		fmt.Fprintln(w, `{}`)
	}
}

// suffered is whether a fault was injected.
var suffered atomic.Bool

// suffers reports whether a fault is injected into a program, or catalog is gone, and no
// policy helps.
func (g gateway) suffers() bool {
	faults := os.Getenv("SHOP_FAULTS")
	if faults == "" {
		return false
	}
	policy := os.Getenv("SHOP_POLICY") != ""
	switch helpless := os.Getenv(Helpless) == "on"; {
	case policy && !helpless:
		return false
	case policy && suffered.Load():
		return true
	}
	for _, name := range Programs {
		if text, _ := os.ReadFile(filepath.Join(filepath.Dir(faults), name)); len(text) > 0 {
			suffered.Store(true)
			return true
		}
	}
	conn, err := net.Dial(split(g.catalog))
	if err == nil {
		_ = conn.Close()
	}
	return err != nil
}
