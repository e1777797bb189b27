package rpc

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}

	lis, err := Listen("unix://" + path)
	if err != nil {
		t.Fatalf("over a dead socket: %v", err)
	}
	defer lis.Close()
	if got := Address(lis); got != "unix://"+path {
		t.Errorf("address %q, want %q", got, "unix://"+path)
	}
	if second, err := Listen("unix:" + path); err == nil {
		second.Close()
		t.Error("a socket in use was taken")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a socket in use was removed: %v", err)
	}
}

func TestListenSparesFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if lis, err := Listen("unix:" + path); err == nil {
		lis.Close()
		t.Error("a file was taken for a socket")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestListenTCP(t *testing.T) {
	lis, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	if got := Address(lis); got != lis.Addr().String() {
		t.Errorf("address %q", got)
	}
}
