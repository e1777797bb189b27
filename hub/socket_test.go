package hub

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stile-ipc/stile"
)

// TestSocket: the socket is this user's, is taken over from a hub that was killed and from nobody else, takes what is sent over gRPC and over shared memory, and is gone in the end.
func TestSocket(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	path := filepath.Join(t.TempDir(), "s")
	killed, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	killed.SetUnlinkOnClose(false)
	if err := killed.Close(); err != nil {
		t.Fatal(err)
	}
	const secret = "a token that writes"
	h := openHub(t, Config{Socket: path, Tokens: []Token{{Role: Write, Secret: secret}}})
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	if _, err := Open(t.Context(), Config{Dir: t.TempDir(), Socket: path, OTLPGRPC: Off, OTLPHTTP: Off, HTTP: Off}); err == nil || !strings.Contains(err.Error(), "somebody listens") {
		t.Errorf("a second hub on the socket: %v", err)
	}
	for name, dial := range map[string]func(string, ...grpc.DialOption) (*grpc.ClientConn, error){"grpc": grpc.NewClient, "stile": stile.NewClient} {
		cc, err := dial("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		if err := cc.Invoke(t.Context(), exportMethod, callSpans(0, 1, "catalog"), new(emptypb.Empty)); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s, without a token: %v", name, err)
		}
		var from peer.Peer
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret)
		for begin := time.Now(); ; { // the door may be there a moment after the socket
			if err := cc.Invoke(ctx, exportMethod, callSpans(0, 1, "catalog"), new(emptypb.Empty), grpc.Peer(&from)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if _, local := from.AuthInfo.(stile.AuthInfo); local == (name == "stile") {
				break
			}
			if time.Since(begin) > 10*time.Second {
				t.Fatalf("%s went by %v", name, from)
			}
		}
		if err := cc.Close(); err != nil {
			t.Error(err)
		}
	}
	closeHub(t, h)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is there still: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestSocketRefused: nothing is replaced that is no socket.
func TestSocketRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: "is no socket", "relative": "no absolute path", filepath.Join(t.TempDir(), "none", "s"): "no such file", t.TempDir(): "is no socket"} {
		if h, err := Open(t.Context(), Config{Dir: t.TempDir(), Socket: path, OTLPGRPC: Off, OTLPHTTP: Off, HTTP: Off}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
			if err == nil {
				closeHub(t, h)
			}
		}
	}
	if text, err := os.ReadFile(file); string(text) != "mine" {
		t.Errorf("the file says %q, %v", text, err)
	}
}
