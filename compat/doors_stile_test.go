package compat

import (
	"net"

	"github.com/stile-ipc/stile"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// servedByStile is a server some framework built, served through stile.Serve.
type servedByStile struct{ *grpc.Server }

func (s servedByStile) Serve(l net.Listener) error { return stile.Serve(s.Server, l) }

var stileDoors = makeStileDoors()

func makeStileDoors() []door {
	type client = func(string, ...grpc.DialOption) (*grpc.ClientConn, error)
	clients := []struct {
		name string
		new  client
	}{
		{"NewClient", stile.NewClient},
		{"DialOptions", func(target string, o ...grpc.DialOption) (*grpc.ClientConn, error) {
			return grpc.NewClient(target, append(o, stile.DialOptions()...)...)
		}},
	}
	servers := []struct {
		name string
		new  func(...grpc.ServerOption) server
	}{
		{"NewServer", func(o ...grpc.ServerOption) server { return stile.NewServer(o...) }},
		{"Serve", func(o ...grpc.ServerOption) server { return servedByStile{grpc.NewServer(o...)} }},
	}
	transports := []struct{ name, env string }{{"shm", ""}, {"unix", "unix"}}
	var out []door
	for _, tr := range transports {
		for _, c := range clients {
			for _, s := range servers {
				out = append(out, door{
					name:      tr.name + "-" + c.name + "-" + s.name,
					transport: tr.env,
					local:     true,
					carries:   tr.name,
					newServer: s.new,
					newClient: c.new,
				})
			}
		}
	}
	// Where one side has no Stile, or has it turned off, all goes as before.
	plain := plainDoor("")
	return append(out,
		door{name: "plain-client", newClient: plain.newClient, newServer: servers[0].new},
		door{name: "plain-server", newClient: clients[0].new, newServer: plain.newServer},
		door{name: "off", off: "off", newClient: clients[0].new, newServer: servers[0].new})
}

func init() {
	carrier = func(i credentials.AuthInfo) string {
		if a, ok := i.(stile.AuthInfo); ok {
			return a.Transport
		}
		return ""
	}
}
