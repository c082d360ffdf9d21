package vhostvsock

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// queue is one virtqueue with its event descriptors: what both directions have
// in common. Its fields but mu, ring and call belong to the goroutine of Serve.
type queue struct {
	d    *Device
	name string
	work func() (pause bool) // what a kick runs

	mu    sync.Mutex  // guards ring, call, errFD and the ring's memory
	ring  *vring      // nil while the queue is stopped
	up    atomic.Bool // there is a ring
	call  int         // eventfd that interrupts the guest, or -1
	errFD int         // eventfd that tells the front-end of a fault, or -1

	kick *os.File // eventfd; nil while the queue is stopped
	quit chan struct{}
	wg   sync.WaitGroup // the goroutine that waits for kicks

	num               uint16
	desc, avail, used uint64
	haveAddr, enabled bool
	base              uint16 // the next entry to take, while ring is nil
	stopped           bool   // base is what the front-end was told
}

func (q *queue) init(d *Device, name string, work func() bool) {
	q.d, q.name, q.work, q.call, q.errFD = d, name, work, -1, -1
}

// start sets the ring up, if all that it takes is there, and works on it.
func (q *queue) start(mem *guestMemory, eventIdx bool) error {
	if q.kick == nil || !q.enabled || !q.haveAddr || len(mem.regions) == 0 {
		return nil
	}
	q.mu.Lock()
	if q.ring != nil {
		q.mu.Unlock()
		return nil
	}
	ring, err := newVring(mem, q.num, q.desc, q.avail, q.used, q.base, eventIdx)
	if err == nil {
		q.ring = ring
		q.up.Store(true)
	}
	q.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s queue: %w", q.name, err)
	}
	q.stopped = false
	q.spawn()
	return nil
}

// spawn starts the goroutine that waits for kicks, unless it runs. It begins
// by working, so no kick is missed.
func (q *queue) spawn() {
	if q.quit != nil {
		// It runs, and the ring is new: a kick of our own makes it look.
		q.poke()
		return
	}
	q.quit = make(chan struct{})
	kick, quit := q.kick, q.quit
	q.wg.Go(func() { q.run(kick, quit) })
}

// poke wakes the goroutine that waits for kicks.
func (q *queue) poke() {
	if rc, err := q.kick.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { signal(int(fd)) })
	}
}

// run works at each kick until the kick descriptor is closed.
//
// The descriptor is never read: Go's poller is edge-triggered, and each write
// to an eventfd is an edge. That spares two system calls per kick.
func (q *queue) run(kick *os.File, quit chan struct{}) {
	rc, err := kick.SyscallConn()
	for err == nil {
		err = rc.Read(func(uintptr) bool { return q.work() })
		if err == nil { // paused
			select {
			case <-q.d.rx.unblocked:
			case <-quit:
				return
			}
		}
	}
}

// suspend takes the ring away and keeps its position.
func (q *queue) suspend() {
	q.mu.Lock()
	if q.ring != nil {
		q.base = q.ring.lastAvail
		q.ring = nil
		q.up.Store(false)
	}
	q.mu.Unlock()
}

// stop suspends the queue, ends its goroutine and closes its kick descriptor.
func (q *queue) stop() {
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

// setKick takes fd over.
func (q *queue) setKick(fd int) error {
	q.stop()
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("kick descriptor: %w", err)
	}
	f := os.NewFile(uintptr(fd), "vring-kick")
	// Fails for what cannot be polled, such as a file.
	if err := f.SetDeadline(time.Time{}); err != nil {
		_ = f.Close()
		return fmt.Errorf("kick descriptor: %w", err)
	}
	q.kick = f
	return nil
}

// setCall takes fd over; -1 means that the front-end polls. An interrupt may
// have been lost in the exchange, so there is one.
func (q *queue) setCall(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	replaceFD(&q.call, fd)
	if q.ring != nil {
		signal(q.call)
	}
}

func (q *queue) setErr(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	replaceFD(&q.errFD, fd)
}

func replaceFD(old *int, fd int) {
	if *old >= 0 {
		_ = unix.Close(*old)
	}
	if fd >= 0 {
		_ = unix.SetNonblock(fd, true) // a full eventfd must not stop the device
	}
	*old = fd
}

// close releases all descriptors.
func (q *queue) close() {
	q.stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	replaceFD(&q.call, -1)
	replaceFD(&q.errFD, -1)
}

func (q *queue) signalError() {
	q.mu.Lock()
	defer q.mu.Unlock()
	signal(q.errFD)
}

// flush shows the guest what was put and interrupts it if it wants to be. q.mu
// is held and there is a ring.
func (q *queue) flush() {
	q.ring.publish()
	if q.ring.needSignal() {
		signal(q.call)
	}
}

var eventOne = binary.NativeEndian.AppendUint64(nil, 1)

// signal adds 1 to an eventfd. It fails only when the counter is full, and
// then the other side has its event.
func signal(fd int) {
	if fd >= 0 {
		_, _ = unix.Write(fd, eventOne)
	}
}
