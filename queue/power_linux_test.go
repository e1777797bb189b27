package queue

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	ext4Shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN
	noFlush        = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH: what is in memory is lost, the journal too
	powerImageSize = 512 << 20
)

// powered is an ext4 in a file, whose power can be cut.
type powered struct {
	image, mount string
}

// powerCuts is how many there are in a test.
func powerCuts() int {
	if n, err := strconv.Atoi(os.Getenv("QUEUE_CUTS")); err == nil {
		return n
	}
	if testing.Short() {
		return 1
	}
	return 3
}

func newPowered(t *testing.T) *powered {
	t.Helper()
	if powerCuts() == 0 {
		t.Skip("QUEUE_CUTS=0: no power cuts")
	}
	dir := t.TempDir()
	p := &powered{filepath.Join(dir, "image"), filepath.Join(dir, "mount")}
	if err := os.Mkdir(p.mount, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(p.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(powerImageSize), f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	command(t, "mkfs.ext4", "-q", "-F", p.image)
	if out, err := exec.Command("mount", "-o", "loop", p.image, p.mount).CombinedOutput(); err != nil {
		t.Fatalf("power cuts take root and loop devices; without them, set QUEUE_CUTS=0: %v %s", err, out)
	}
	t.Cleanup(func() { _ = unix.Unmount(p.mount, unix.MNT_DETACH) })
	return p
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (p *powered) on(t *testing.T) {
	t.Helper()
	command(t, "mount", "-o", "loop", p.image, p.mount)
}

// cut takes the power away: the file system writes nothing any more.
func (p *powered) cut() error {
	f, err := os.Open(p.mount)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noFlush)
}

// off unmounts what was cut. The last process that had files there may just be ending.
func (p *powered) off(t *testing.T) {
	t.Helper()
	var err error
	for range 100 {
		if err = unix.Unmount(p.mount, 0); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal(err)
}

// TestPowerCut cuts the power while messages are published: of a topic that is Synced none with a receipt is absent, of one that is Bounded
// none that had its receipt before such a one began. Of one that is Buffered some are, or the test proves nothing.
func TestPowerCut(t *testing.T) {
	p, cuts := newPowered(t), powerCuts()
	dir := filepath.Join(p.mount, "data")
	const synced, bounded, buffered = "Synced", "Bounded", "Buffered"
	promised, next, total, lost := map[string][]int{}, 0, 0, 0
	for range cuts {
		var cutErr error
		r := publishUntil(t, dir, next, 500*time.Millisecond, func(c *exec.Cmd) {
			cutErr = p.cut()
			_ = c.Process.Kill()
		})
		if cutErr != nil {
			t.Fatal(cutErr)
		}
		p.off(t)
		p.on(t)
		promised[synced] = append(promised[synced], r.kept[synced]...)
		promised[bounded] = append(promised[bounded], r.kept[bounded][:r.safe]...)
		if n := absent(t, dir, promised); len(n) > 0 {
			t.Fatalf("of %d and %d messages that were on disk are absent: %v", len(promised[synced]), len(promised[bounded]), n)
		}
		lost += absent(t, dir, map[string][]int{buffered: r.kept[buffered]})[buffered]
		total += len(r.kept[buffered])
		next = r.last + 1000
	}
	if lost == 0 {
		t.Error("no Buffered message was lost: no power was cut")
	}
	t.Logf("%d cuts: %d Synced and %d Bounded messages, none absent; of %d Buffered ones %d", cuts, len(promised[synced]), len(promised[bounded]), total, lost)
}

// TestDiskFull: a disk without room refuses messages with an error that says so, and none with a receipt is lost, then or after
// the program has been started again.
func TestDiskFull(t *testing.T) {
	p := newPowered(t)
	dir := filepath.Join(p.mount, "data")
	q := open(t, dir)
	top := topic(t, q, "orders")
	filler := filepath.Join(p.mount, "filler")
	fillDisk(t, filler)
	kept := 0
	var err error
	for body := wrapperspb.String(strings.Repeat("x", 100_000)); err == nil && kept < 1000; {
		if _, err = top.Publish(t.Context(), body, ID(strconv.Itoa(kept))); err == nil {
			kept++
		}
	}
	t.Logf("after %d: %v", kept, err)
	if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), `topic "orders"`) {
		t.Errorf("after %d: %v", kept, err)
	}
	check := func(when string) {
		t.Helper()
		all := stored(t, q, "orders")
		for i := range kept {
			if m := all[uint64(i+1)]; m == nil || m.Header.Get(headerID) != strconv.Itoa(i) {
				t.Errorf("%s: message %d of %d: %v", when, i, kept, m)
			}
		}
	}
	check("while it is full")
	_ = q.Close() // it may not be able to write
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir)
	check("with room again")
	if _, err := topic(t, q, "orders").Publish(t.Context(), wrapperspb.String("x")); err != nil {
		t.Errorf("with room again: %v", err)
	}
	shut(t, q)
}

// fillDisk leaves a megabyte.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-1<<20); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10) // root may use what others may not
	for {
		if _, err := f.Write(buf); errors.Is(err, unix.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(fileSize(t, f) - 1<<20); err != nil {
		t.Fatal(err)
	}
}

func fileSize(t *testing.T, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
