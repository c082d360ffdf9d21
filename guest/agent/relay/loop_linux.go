package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Loop moves the bytes of all relays on one thread of its own, so that no goroutine has to
// wake up between reading bytes and writing them.
type Loop struct {
	log   *slog.Logger
	poll  int // an epoll, edge-triggered
	event int // an eventfd that wakes the thread
	ended chan struct{}

	mu     sync.Mutex
	todo   []func() // for the thread to do
	closed bool

	// What follows is the thread's own.
	ends  []*end  // by descriptor; nil where there is none
	ready []*link // that have something to do
	timed []timer
	buf   []byte // what is read into
	spare [][]byte
	age   int32 // of the last descriptor
}

// timer is something that is due at a time.
type timer struct {
	at time.Time
	f  func()
}

const (
	// bufferSize is the most bytes that are moved at once.
	bufferSize = 128 << 10
	// turn is how many of them one relay may move before it is another's turn.
	turn = 512 << 10
	// keepBuffers is how many buffers without use are kept.
	keepBuffers = 8
	// maxEvents is how many events are taken at once.
	maxEvents = 64
)

// errClosed is what a loop fails with that was closed.
var errClosed = errors.New("the relay's loop was closed")

// OpenLoop starts a loop. Its thread runs on the given CPU, such as the one that handles
// the interrupts of the vsock device; a negative number is any CPU.
func OpenLoop(cpu int, log *slog.Logger) (*Loop, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		// Fd is all that is looked at: no end has the event's.
		err = unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(event)})
	}
	if err != nil {
		unix.Close(poll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &Loop{log: log, poll: poll, event: event, ended: make(chan struct{}), buf: make([]byte, bufferSize)}
	go l.run(cpu)
	return l, nil
}

// Close ends every relay, and waits until all are closed.
func (l *Loop) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		l.wake()
	}
	l.mu.Unlock()
	<-l.ended
}

// do has the thread call f. It returns false where the loop has ended.
func (l *Loop) do(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.todo = append(l.todo, f); len(l.todo) == 1 {
		l.wake()
	}
	return true
}

// wake wakes the thread. l.mu is held: once the loop is closed, the descriptor may
// be another's.
func (l *Loop) wake() {
	one := [8]byte{1}
	unix.Write(l.event, one[:])
}

func (l *Loop) run(cpu int) {
	defer close(l.ended)
	runtime.LockOSThread() // and never unlocked: the thread ends with its affinity
	if cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			l.log.Warn("the relay's thread does not keep to its CPU", "cpu", cpu, "err", err)
		}
	}
	events := make([]unix.EpollEvent, maxEvents)
	for l.chores() {
		n, err := unix.EpollWait(l.poll, events, l.patience())
		if err != nil && err != unix.EINTR {
			l.log.Error("forwarded connections cannot be served any more", "err", err)
			break
		}
		for i := range max(n, 0) {
			l.dispatch(&events[i])
		}
		l.serve()
	}
	l.end()
}

// chores does what others have asked for and what is due. It returns false at
// the end.
func (l *Loop) chores() bool {
	l.mu.Lock()
	todo, closed := l.todo, l.closed
	l.todo = nil
	l.mu.Unlock()
	for _, f := range todo {
		f()
	}
	if len(l.timed) > 0 {
		now := time.Now()
		due := l.timed
		l.timed = nil
		for _, t := range due {
			if t.at.After(now) {
				l.timed = append(l.timed, t)
			} else {
				t.f()
			}
		}
	}
	return !closed
}

// after has f called once, by the thread.
func (l *Loop) after(d time.Duration, f func()) {
	l.timed = append(l.timed, timer{time.Now().Add(d), f})
}

// patience is how long the thread may wait, in milliseconds.
func (l *Loop) patience() int {
	if len(l.ready) > 0 {
		return 0
	}
	if len(l.timed) == 0 {
		return -1
	}
	first := slices.MinFunc(l.timed, func(a, b timer) int { return a.at.Compare(b.at) })
	return max(int(time.Until(first.at).Milliseconds())+1, 0)
}

// watch begins to watch e, or watches its descriptor on for it.
func (l *Loop) watch(e *end) error {
	if e.fd < len(l.ends) && l.ends[e.fd] != nil {
		e.age = l.ends[e.fd].age
		l.ends[e.fd] = e
		return nil
	}
	l.age++
	e.age = l.age
	for len(l.ends) <= e.fd {
		l.ends = append(l.ends, nil)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(e.fd), Pad: e.age}
	if err := unix.EpollCtl(l.poll, unix.EPOLL_CTL_ADD, e.fd, &ev); err != nil {
		return err
	}
	l.ends[e.fd] = e
	return nil
}

// unwatch leaves a descriptor open.
func (l *Loop) unwatch(fd int) {
	l.ends[fd] = nil
	unix.EpollCtl(l.poll, unix.EPOLL_CTL_DEL, fd, nil)
}

// dispatch notes what has become possible.
func (l *Loop) dispatch(ev *unix.EpollEvent) {
	fd := int(ev.Fd)
	if fd >= len(l.ends) || l.ends[fd] == nil || l.ends[fd].age != ev.Pad {
		return // the event's, or of a descriptor that was closed since
	}
	e := l.ends[fd]
	if ev.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.readable = true
	}
	if ev.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.writable = true
	}
	if e.on != nil {
		e.on()
		return
	}
	l.enqueue(e.link)
}

func (l *Loop) enqueue(lk *link) {
	if !lk.queued && !lk.over {
		lk.queued = true
		l.ready = append(l.ready, lk)
	}
}

// serve gives each relay its turn that has something to do.
func (l *Loop) serve() {
	n := len(l.ready)
	for _, lk := range l.ready[:n] {
		lk.queued = false
		if !lk.over && lk.serve() {
			l.enqueue(lk)
		}
	}
	l.ready = append(l.ready[:0], l.ready[n:]...)
}

// close closes e, which so is not watched any more.
func (l *Loop) close(e *end) {
	if e.fd < len(l.ends) && l.ends[e.fd] == e {
		l.ends[e.fd] = nil // an epoll forgets what is closed
	}
	unix.Close(e.fd)
}

// lendBuffer has e keep the buffer that was read into, and takes another.
func (l *Loop) lendBuffer(e *end) {
	e.buffer = l.buf
	if n := len(l.spare); n > 0 {
		l.buf, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		l.buf = make([]byte, bufferSize)
	}
}

// putBuffer takes back what e has kept.
func (l *Loop) putBuffer(e *end) {
	if e.buffer != nil && len(l.spare) < keepBuffers {
		l.spare = append(l.spare, e.buffer)
	}
	e.due, e.buffer = nil, nil
}

// end ends everything.
func (l *Loop) end() {
	l.mu.Lock()
	l.closed = true
	todo := l.todo
	l.todo = nil
	l.mu.Unlock()
	for _, f := range todo {
		f()
	}
	for _, e := range l.ends {
		switch {
		case e == nil:
		case e.link != nil:
			e.link.fail()
		default:
			l.close(e)
		}
	}
	unix.Close(l.event)
	unix.Close(l.poll)
}
