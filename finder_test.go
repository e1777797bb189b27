package stile

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func TestPolicyOf(t *testing.T) {
	for js, want := range map[string]string{
		``:                                      "",
		`{}`:                                    "",
		`{"loadBalancingPolicy":"ROUND_ROBIN"}`: "round_robin",
		`{"loadBalancingConfig":[{"pick_first":{}}]}`:                                        "",
		`{"loadBalancingConfig":[{"round_robin":{}},{"pick_first":{}}]}`:                     "round_robin",
		`{"loadBalancingPolicy":"round_robin","healthCheckConfig":{"serviceName":"x"}}`:      healthChecked + "round_robin",
		`{"healthCheckConfig":{"serviceName":"x"}}`:                                          "",
		`{"loadBalancingConfig":[{"round_robin":{}}],"loadBalancingPolicy":"weighted_rand"}`: "round_robin",
	} {
		if got := policyOf(js); got != want {
			t.Errorf("%s: policy %q, want %q", js, got, want)
		}
	}
}

func TestFinderParse(t *testing.T) {
	for _, c := range []struct {
		scheme, name string
		want         []string
	}{
		{"passthrough", "127.0.0.1:50051", []string{"127.0.0.1:50051"}},
		{"dns", "[::1]:1", []string{"[::1]:1"}},
		{"passthrough", "unix:///run/x.sock", []string{"/run/x.sock"}},
		{"passthrough", "unix:x.sock", []string{"x.sock"}},
		{"unix", "/run/x.sock", []string{"/run/x.sock"}},
		{"unix-abstract", "@name", []string{"@name"}},
		{"passthrough", "no port", nil},
		{"passthrough", "127.0.0.1:nonsense-port", nil},
	} {
		f := &finder{scheme: c.scheme}
		got := f.parse(context.Background(), c.name)
		if len(got) != len(c.want) {
			t.Errorf("%s %q: %v, want %v", c.scheme, c.name, got, c.want)
			continue
		}
		for i, a := range got {
			if a.String() != c.want[i] {
				t.Errorf("%s %q: %v, want %v", c.scheme, c.name, got, c.want)
			}
			if _, tcp := a.(*net.TCPAddr); tcp == (a.Network() == "unix") {
				t.Errorf("%s %q: network %s", c.scheme, c.name, a.Network())
			}
		}
	}
}

// The target goes to the resolver as grpc-go reads it: the canonical form of a
// relative unix target would be another file.
func TestFinderTarget(t *testing.T) {
	for target, want := range map[string]string{
		"unix:rel.sock":            "rel.sock",
		"unix:///abs.sock":         "/abs.sock",
		"unix:/abs.sock":           "/abs.sock",
		"unix-abstract:name":       "@name",
		"passthrough:///1.2.3.4:5": "1.2.3.4:5",
		"1.2.3.4:5":                "1.2.3.4:5",
		"dns:///1.2.3.4:5":         "1.2.3.4:5",
	} {
		cc, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		f := newFinder(&entrance{cc: cc})
		got, reason := f.places(context.Background())
		f.close()
		cc.Close()
		if len(got) != 1 || got[0].addr.String() != want || reason != "" {
			t.Errorf("%s: %v (%s), want %s", target, got, reason, want)
		}
	}
}
