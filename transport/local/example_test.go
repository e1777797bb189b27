//go:build unix && !aix && !solaris

package local_test

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/stile-ipc/stile/transport/local"
)

func Example() {
	dir, err := os.MkdirTemp("", "stile")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	addr := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 50051}

	// The server, beside its listener on addr.
	keys, err := local.KeysFor(addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := local.Listen(local.ListenConfig{Dir: dir, Keys: keys, Settings: []byte("hello")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
		}
	}()

	// The client, about to call addr.
	key, err := local.KeyOf(addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	c, settings, err := local.Dial(context.Background(), key, local.DialConfig{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Printf("%s, told %q by its server", key, settings)
	// Output: tcp-192.0.2.1:50051, told "hello" by its server
}

func ExampleProbe() {
	dir, err := os.MkdirTemp("", "stile")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	r, err := local.Probe(context.Background(), "tcp-192.0.2.1:50051", local.DialConfig{Dir: dir})
	for _, s := range r.Steps {
		fmt.Println(s.Name, s.OK)
	}
	fmt.Println(err != nil)
	// Output:
	// folder true
	// entry false
	// true
}
