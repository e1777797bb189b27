package shm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
)

// Conn is one end of a shared-memory connection. It implements [transport.Conn].
//
// Locks, none held while another is waited for: wlock owns out and the right to
// ring for a frame, rlock owns in and the right to ring for space. Whoever ends
// the connection for good takes both and never gives them back; only then is the
// memory unmapped.
type Conn struct {
	info transport.Info
	ctl  *net.UnixConn
	seg  *segment
	bell int // the peer's doorbell
	bed  bed // our own

	trimmer trimmer
	wlock   writeLock
	out     producer
	lender  *lender
	blocked atomic.Bool   // a writer waits for space
	space   chan struct{} // one token: look for space again

	rlock   receiveLock
	in      consumer
	handler transport.Handler
	batcher transport.Batcher // handler, if it is one
	duty    duty
	spin    spinner
	polled  atomic.Bool // someone called Poll since the goroutine last slept
	crowd   crowd

	gone  atomic.Pointer[error] // the control socket ended; drain, then end
	ended atomic.Pointer[error] // the cause
	claim atomic.Bool           // taken by the one who ends the connection
	dead  chan struct{}         // closed when ended is set

	startMu sync.Mutex
	started bool
	watched sync.WaitGroup // watch
	freeing sync.Once      // starts free
	freed   sync.WaitGroup // free
	locked  chan struct{}  // closed when both locks are held for good
	done    chan struct{}  // closed when every resource is given back
	stats   counters
}

var (
	_ transport.Lender   = (*Conn)(nil)
	_ transport.Reliever = (*Conn)(nil)
)

type counters struct {
	framesIn, framesOut, bytesIn, bytesOut, doorbells, parks, polls, spin atomic.Uint64
}

// Create makes the segment and both doorbells on the accepting side of ctl, the
// connected control socket. files are what the peer's Attach needs, in order, to
// be sent with SCM_RIGHTS; the caller closes them afterwards. The Conn owns ctl
// unless Create fails, and reads from it once started: any byte is then a
// violation of the protocol.
func Create(ctl *net.UnixConn, info transport.Info, cfg Config) (*Conn, []*os.File, error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	fds := make([]int, 0, segmentFiles)
	fd, err := createSegmentFile(cfg.ringSize())
	if err != nil {
		return nil, nil, fmt.Errorf("shm: create: %w", err)
	}
	fds = append(fds, fd)
	for range 2 {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			closeAll(fds)
			return nil, nil, fmt.Errorf("shm: create: eventfd: %w", err)
		}
		fds = append(fds, fd)
	}
	files := make([]*os.File, 0, segmentFiles)
	for i, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(fds)
			closeFiles(files)
			return nil, nil, fmt.Errorf("shm: create: %w", err)
		}
		files = append(files, passedFile(dup, i))
	}
	c, err := newConn(ctl, fds, cfg.ringSize(), 0, info, cfg)
	if err != nil {
		closeFiles(files)
		return nil, nil, fmt.Errorf("shm: create: %w", err)
	}
	return c, files, nil
}

// passedFile wraps a descriptor that is only passed on. A doorbell must not get
// into our poller twice, and Go's poller takes what is non-blocking when it is
// wrapped.
func passedFile(fd, i int) *os.File {
	if i > 0 {
		_ = unix.SetNonblock(fd, false)
		defer func() { _ = unix.SetNonblock(fd, true) }()
	}
	return os.NewFile(uintptr(fd), segmentName)
}

// Attach maps what the peer's Create made. It owns fds, also when it fails, and
// ctl when it succeeds; see Create.
func Attach(ctl *net.UnixConn, fds []int, info transport.Info, cfg Config) (*Conn, error) {
	size, err := checkOffer(fds, cfg)
	if err != nil {
		closeAll(fds)
		return nil, fmt.Errorf("shm: attach: %w", err)
	}
	c, err := newConn(ctl, fds, size, 1, info, cfg)
	if err != nil {
		return nil, fmt.Errorf("shm: attach: %w", err)
	}
	return c, nil
}

func checkOffer(fds []int, cfg Config) (ring int, err error) {
	if err := cfg.Validate(); err != nil {
		return 0, err
	}
	if len(fds) != segmentFiles {
		return 0, fmt.Errorf("%w: %d descriptors, need %d", ErrLayout, len(fds), segmentFiles)
	}
	for i, fd := range fds {
		unix.CloseOnExec(fd)
		if i == 0 {
			ring, err = checkSegmentFile(fd)
		} else {
			err = checkDoorbell(fd)
		}
		if err != nil {
			return 0, err
		}
	}
	return ring, nil
}

// newConn makes side 0 (creating) or 1 (attaching). It owns fds, also when it
// fails; the memfd is not needed once it is mapped.
func newConn(ctl *net.UnixConn, fds []int, ring, side int, info transport.Info, cfg Config) (_ *Conn, err error) {
	if err := checkOvercommit(overcommitFile); err != nil {
		closeAll(fds)
		return nil, err
	}
	if !memory.take(ringCharge) {
		closeAll(fds)
		return nil, fmt.Errorf("%w: the limit of %d bytes of shared memory is reached", ErrUnavailable, memory.limit.Load())
	}
	defer func() {
		if err != nil {
			memory.give(ringCharge)
		}
	}()
	seg, err := mapSegment(fds[0], ring)
	if err != nil {
		closeAll(fds)
		return nil, err
	}
	_ = unix.Close(fds[0])
	own, peer := fds[1+side], fds[2-side]
	b, err := newBed(own)
	if err == nil {
		err = unix.SetNonblock(peer, true)
		if err != nil {
			_ = b.f.Close()
		}
	}
	if err != nil {
		_ = unix.Close(peer)
		seg.release()
		return nil, err
	}
	if info.Transport == "" {
		info.Transport = "shm"
	}
	c := &Conn{
		info:   info,
		ctl:    ctl,
		seg:    seg,
		bell:   peer,
		bed:    b,
		wlock:  newWriteLock(),
		out:    newProducer(seg, side),
		lender: newLender(seg, side),
		space:  make(chan struct{}, 1),
		in:     newConsumer(seg, 1-side),
		spin:   newSpinner(cfg.Spin),
		dead:   make(chan struct{}),
		locked: make(chan struct{}),
		done:   make(chan struct{}),
	}
	c.trimmer.conn = c
	return c, nil
}

// Start begins the delivery of incoming frames to h.
func (c *Conn) Start(h transport.Handler) {
	c.startMu.Lock()
	defer c.startMu.Unlock()
	if c.started {
		panic("shm: Conn.Start called twice")
	}
	c.handler = h
	c.batcher, _ = h.(transport.Batcher)
	if c.isReleased() {
		c.started = true
		h.HandleClose(c.cause())
		return
	}
	c.started = true
	c.watched.Go(c.watch)
	go c.receive()
}

func (c *Conn) isReleased() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// watch waits for the end of the control socket: the peer closed or died.
func (c *Conn) watch() {
	var b [1]byte
	_, err := c.ctl.Read(b[:])
	if err == nil {
		c.Fail(fmt.Errorf("shm: bytes on the control socket: %w", transport.ErrProtocol))
		return
	}
	err = fmt.Errorf("shm: control socket: %w (%w)", transport.ErrPeerGone, err)
	c.startFree()
	c.gone.Store(&err)
	c.bed.wake()
	c.Relieve()
}

// Fail ends the connection with a cause and returns at once.
func (c *Conn) Fail(err error) {
	if err == nil {
		err = transport.ErrClosed
	}
	if !c.claim.CompareAndSwap(false, true) {
		return
	}
	c.startFree() // before the end is known: giveBack waits for it
	c.ended.Store(&err)
	close(c.dead)
	c.hangUp()
	c.bed.wake()
	c.Relieve()
}

// startFree starts free when the connection is about to end. It returns once that
// is so, whoever was first: giveBack waits for what was started.
func (c *Conn) startFree() { c.freeing.Do(func() { c.freed.Go(c.free) }) }

// free lets go whoever is in the kernel, ringing a doorbell that a hostile peer has
// made block, with a lock of ours. It tries again, because the peer may fill the
// doorbell again.
func (c *Conn) free() {
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		unstick(c.bell)
		select {
		case <-c.locked:
			return
		case <-retry.C:
		}
	}
}

// hangUp tells the peer that the connection has ended. It does so under wlock: a
// writer that was not too late must publish its frame before. If there is one,
// it calls hangUp when it is done.
func (c *Conn) hangUp() {
	if c.wlock.tryLock() {
		_ = c.ctl.Close()
		c.wlock.unlock()
	}
}

// cause is why the connection ended, which it has.
func (c *Conn) cause() error {
	<-c.dead
	return *c.ended.Load()
}

// ending tells whether receiving is to stop: the goroutine takes over then.
func (c *Conn) ending() bool { return c.ended.Load() != nil || c.gone.Load() != nil }

// Close ends the connection with [transport.ErrClosed], waits for its goroutines
// and gives everything back. What was written stays in the memory that the peer
// has mapped, until it has read it.
func (c *Conn) Close() error {
	c.Fail(transport.ErrClosed)
	<-c.dead
	c.startMu.Lock()
	for !c.started && !c.isReleased() {
		if c.rlock.tryLock() {
			c.giveBack()
		}
		runtime.Gosched()
	}
	c.startMu.Unlock()
	<-c.done
	return nil
}

// giveBack frees everything of a connection that has ended. The caller holds
// rlock, which stays held.
func (c *Conn) giveBack() {
	c.wlock.lock(nil, nil) // a writer sees that the connection ended
	close(c.locked)
	c.freed.Wait()
	c.trimmer.close()
	c.lender.close()
	memory.give(c.out.charged)
	c.seg.release()
	_ = unix.Close(c.bell)
	_ = c.bed.f.Close()
	_ = c.ctl.Close() // hangUp may have found the lock taken
	c.watched.Wait()
	close(c.done)
}

// Info describes the connection.
func (c *Conn) Info() transport.Info { return c.info }

// Stats returns this side's counts so far.
func (c *Conn) Stats() Stats {
	return Stats{
		FramesIn:  c.stats.framesIn.Load(),
		FramesOut: c.stats.framesOut.Load(),
		BytesIn:   c.stats.bytesIn.Load(),
		BytesOut:  c.stats.bytesOut.Load(),
		Doorbells: c.stats.doorbells.Load(),
		Parks:     c.stats.parks.Load(),
		Polls:     c.stats.polls.Load(),
		Spin:      time.Duration(c.stats.spin.Load()),
	}
}

// Available tells whether segments and doorbells can be made and checked here,
// and if not, why not.
func Available() error {
	if err := checkOvercommit(overcommitFile); err != nil {
		return err
	}
	fd, err := createSegmentFile(MinRingSize)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := checkSegmentFile(fd); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("%w: eventfd: %w", ErrUnavailable, err)
	}
	defer func() { _ = unix.Close(bell) }()
	if err := checkDoorbell(bell); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

var errTooLong = errors.New("shm: payload exceeds wire.MaxPayload")
