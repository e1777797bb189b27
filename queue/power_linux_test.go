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

func newPowered(t *testing.T) *powered {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("no power cuts here: mounting takes root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("no power cuts here: %v", err)
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
		t.Skipf("no power cuts here, where nothing can be mounted: %v %s", err, out)
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
// none whose receipt is older than 100 ms. Of one that is Buffered some are, or the test proves nothing.
func TestPowerCut(t *testing.T) {
	cuts := 3
	if testing.Short() {
		cuts = 1
	}
	if n, err := strconv.Atoi(os.Getenv("QUEUE_CUTS")); err == nil {
		cuts = n
	}
	p := newPowered(t)
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
		promised[bounded] = append(promised[bounded], r.kept[bounded][:r.safe[bounded]]...)
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
