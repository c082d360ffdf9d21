package vhostuser

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Queue is one virtqueue with its event descriptors. The owner sets the exported fields
// before [New]. The fields after those of the lock belong to Serve's goroutine.
type Queue struct {
	Name string // for errors
	// Service processes the ring after the guest's kick, in a goroutine of the queue. If it
	// returns true, it is called again only after Resume.
	Service func() (pause bool)
	// Drain, if not nil, takes the last messages of the guest before its driver or the
	// front-end goes away. It runs in Serve's goroutine.
	Drain func()
	// Interrupt, if not nil, is called before the queue waits for chains in progress, see
	// Begin. It may not block.
	Interrupt func()
	// Orphan, if not nil, finishes a chain that an earlier back-end has taken and not given
	// back, see [Config].Inflight. It writes to out, and returns how many bytes. It is called
	// with the lock held.
	Orphan func(in, out [][]byte) int

	mu    sync.Mutex  // guards ring, call, errFD and the ring's memory
	ring  *Ring       // nil while the queue is stopped
	up    atomic.Bool // whether there is a ring
	call  int         // eventfd that interrupts the guest, or -1
	errFD int         // eventfd that tells the front-end of a fault, or -1

	resumed chan struct{} // holds a token after Resume

	inProgress int        // chains between Begin and Finish
	idle       *sync.Cond // of mu: inProgress is 0
	leaving    bool       // the ring is about to go
	inflight   *inflight  // nil: chains do not outlive this process

	kick *os.File // eventfd; nil while the queue is stopped
	quit chan struct{}
	wg   sync.WaitGroup // of the goroutine that waits for kicks

	num               uint16
	desc, avail, used uint64
	haveAddr, enabled bool
	base              uint16 // the next entry to take, while ring is nil
	stopped           bool   // the front-end was told base
}

func (q *Queue) init() {
	q.call, q.errFD = -1, -1
	q.resumed = make(chan struct{}, 1)
	q.idle = sync.NewCond(&q.mu)
}

// Lock takes the queue's lock. It guards the ring and keeps the guest's memory in place.
func (q *Queue) Lock() { q.mu.Lock() }

// Unlock releases the queue's lock.
func (q *Queue) Unlock() { q.mu.Unlock() }

// Ring returns the queue's ring, or nil while it is stopped. The caller holds the lock, and
// may use the ring only while it does.
func (q *Queue) Ring() *Ring {
	if q.leaving {
		return nil
	}
	return q.ring
}

// Begin takes the chain that PeekBoth returned, to be served without the lock. The ring and
// the guest's memory stay until Finish. The caller holds the lock.
func (q *Queue) Begin(head uint16) {
	if q.inflight != nil {
		q.inflight.take(head, q.ring.lastAvail)
	}
	q.ring.Take()
	q.inProgress++
}

// Finish gives a chain back to the guest, with the number of bytes that were written to it.
// The caller does not hold the lock.
func (q *Queue) Finish(head uint16, written int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.giveBack(head, written)
	if q.inProgress--; q.inProgress == 0 {
		q.idle.Broadcast()
	}
}

// giveBack publishes a chain at once. The caller holds the lock.
func (q *Queue) giveBack(head uint16, written int) {
	r := q.ring
	if q.inflight != nil {
		q.inflight.putting(head, r.usedIdx+1)
	}
	r.Put(head, written)
	r.publish()
	if q.inflight != nil {
		q.inflight.put(head)
	}
	if r.needSignal() {
		signal(q.call)
	}
}

// adopt finishes what an earlier back-end of the same ring has left. The caller holds the
// lock.
func (q *Queue) adopt() error {
	if q.inflight == nil {
		return nil
	}
	for _, head := range q.inflight.orphans(q.ring) {
		in, out, err := q.ring.chain(head)
		if err != nil {
			return err
		}
		written := 0
		if q.Orphan != nil {
			written = q.Orphan(in, out)
		}
		q.giveBack(head, written)
	}
	return nil
}

// Up reports whether the queue has a ring. It takes no lock.
func (q *Queue) Up() bool { return q.up.Load() }

// Resume lets Service run again after a pause. It never waits.
func (q *Queue) Resume() {
	select {
	case q.resumed <- struct{}{}:
	default: // it has not noticed the last Resume yet
	}
}

// Flush publishes the used entries and interrupts the guest if it wants that. The caller
// holds the lock, and there is a ring.
func (q *Queue) Flush() {
	q.ring.publish()
	if q.ring.needSignal() {
		signal(q.call)
	}
}

// start sets the ring up if all its parts are known, and processes it. The driver must have
// negotiated the required features.
func (q *Queue) start(mem *guestMemory, features, required uint64) error {
	if q.kick == nil || !q.enabled || !q.haveAddr || len(mem.regions) == 0 {
		return nil
	}
	q.mu.Lock()
	if q.ring != nil {
		q.mu.Unlock()
		return nil
	}
	var ring *Ring
	var err error
	if lacks := required &^ features; lacks != 0 {
		err = fmt.Errorf("the driver lacks features %#x", lacks)
	} else {
		base := q.base
		if q.inflight != nil {
			base, err = q.inflight.begin(q.num, q.base)
		}
		if err == nil {
			ring, err = newRing(mem, q.num, q.desc, q.avail, q.used, base, features)
		}
	}
	if err == nil {
		q.ring = ring
		if err = q.adopt(); err != nil {
			q.ring = nil
		}
	}
	if err == nil {
		q.up.Store(true)
	}
	q.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s queue: %w", q.Name, err)
	}
	q.stopped = false
	q.spawn()
	return nil
}

// spawn starts the goroutine that waits for kicks, unless it runs. The goroutine starts by
// processing the ring, so no kick is missed.
func (q *Queue) spawn() {
	if q.quit != nil {
		// It runs, and the ring is new: our own kick makes it look.
		q.poke()
		return
	}
	q.quit = make(chan struct{})
	kick, quit := q.kick, q.quit
	q.wg.Go(func() { q.run(kick, quit) })
}

// poke wakes the goroutine that waits for kicks.
func (q *Queue) poke() {
	if rc, err := q.kick.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { signal(int(fd)) })
	}
}

// run calls Service at each kick until the kick descriptor is closed.
//
// The descriptor is never read: Go's poller is edge-triggered, and each write to an eventfd
// is an edge. That saves two system calls per kick.
func (q *Queue) run(kick *os.File, quit chan struct{}) {
	rc, err := kick.SyscallConn()
	for err == nil {
		err = rc.Read(func(uintptr) bool { return q.Service() })
		if err == nil { // paused
			select {
			case <-q.resumed:
			case <-quit:
				return
			}
		}
	}
}

// suspend removes the ring and keeps its position. It waits for chains in progress.
func (q *Queue) suspend() {
	q.mu.Lock()
	q.leaving = true
	if q.inProgress > 0 && q.Interrupt != nil {
		q.Interrupt()
	}
	for q.inProgress > 0 {
		q.idle.Wait()
	}
	q.leaving = false
	if q.ring != nil {
		q.base = q.ring.lastAvail
		q.ring = nil
		q.up.Store(false)
	}
	q.mu.Unlock()
}

// stop suspends the queue, ends its goroutine and closes its kick descriptor.
func (q *Queue) stop() {
	q.suspend()
	if q.kick != nil {
		if q.quit != nil {
			close(q.quit)
		}
		_ = q.kick.Close() // waits for nothing but the poller
		q.wg.Wait()
		q.kick, q.quit = nil, nil
	}
}

func (q *Queue) drain() {
	if q.Drain != nil {
		q.Drain()
	}
}

// setKick takes over fd.
func (q *Queue) setKick(fd int) error {
	q.stop()
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("kick descriptor: %w", err)
	}
	f := os.NewFile(uintptr(fd), "vring-kick")
	// Fails for descriptors that cannot be polled, such as files.
	if err := f.SetDeadline(time.Time{}); err != nil {
		_ = f.Close()
		return fmt.Errorf("kick descriptor: %w", err)
	}
	q.kick = f
	return nil
}

// setCall takes over fd; -1 means that the front-end polls. It sends an interrupt, because
// one may have been lost in the exchange.
func (q *Queue) setCall(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	replaceFD(&q.call, fd)
	if q.ring != nil {
		signal(q.call)
	}
}

func (q *Queue) setErr(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	replaceFD(&q.errFD, fd)
}

func replaceFD(old *int, fd int) {
	if *old >= 0 {
		_ = unix.Close(*old)
	}
	if fd >= 0 {
		_ = unix.SetNonblock(fd, true) // a full eventfd must not block the device
	}
	*old = fd
}

// close releases all descriptors.
func (q *Queue) close() {
	q.stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	replaceFD(&q.call, -1)
	replaceFD(&q.errFD, -1)
}

func (q *Queue) signalError() {
	q.mu.Lock()
	defer q.mu.Unlock()
	signal(q.errFD)
}

var eventOne = binary.NativeEndian.AppendUint64(nil, 1)

// signal adds 1 to an eventfd. It fails only if the counter is full, and then the other side
// has an event already.
func signal(fd int) {
	if fd >= 0 {
		_, _ = unix.Write(fd, eventOne)
	}
}
