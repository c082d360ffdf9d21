package ttywait

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a terminal that is watched from before its first process on.
type Terminal struct {
	tty    *os.File // the end that processes have, non-blocking
	events *Events  // nil where the kernel has none
	watch  *watch   // nil as well
	begins chan struct{}

	once sync.Once
	stop chan struct{}
	done sync.WaitGroup
}

// Watch prepares a terminal: tty is the end that processes have, opened non-blocking for this
// alone, which Close closes. ev may be nil: then looks replace events, and a process that
// polls a terminal whose mode it has not changed is not seen.
func (ev *Events) Watch(tty *os.File) (*Terminal, error) {
	t := &Terminal{tty: tty, events: ev, begins: make(chan struct{}, 1), stop: make(chan struct{})}
	if ev != nil {
		w, err := ev.add(tty)
		if err != nil {
			return nil, err
		}
		t.watch = w
	}
	return t, nil
}

// Follow calls ask each time that processes begin to wait for the terminal's input, with
// true, and when none does any more. The calls end with Close.
func (t *Terminal) Follow(ask func(wanted bool)) {
	t.done.Go(func() { t.follow(ask) })
}

// Close ends the watch, and waits for a call of ask under way.
func (t *Terminal) Close() {
	t.once.Do(func() { close(t.stop) })
	t.done.Wait()
	if t.watch != nil {
		t.events.remove(t.watch)
		t.watch = nil
	}
	t.tty.Close()
}

func (t *Terminal) follow(ask func(bool)) {
	var d demand
	var begun <-chan waiter
	if t.watch != nil {
		begun = t.watch.begun
	}
	events := 0 // since the last look
	armed := true
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		changed := false
		var look <-chan time.Time
		if d.wanted || begun == nil {
			look = tick.C
		}
		select {
		case <-t.stop:
			return
		case w := <-begun:
			changed = d.begun(w)
			if changed {
				tick.Reset(lookEvery)
			}
			events++
			if armed = events < maxEvents; armed {
				t.watch.arm()
			}
		case <-t.begins:
			changed = d.looked(false, t.Plain(), polls)
			tick.Reset(lookEvery)
		case <-look:
			if events = 0; !armed {
				armed = t.watch.arm() == nil
			}
			changed = d.looked(t.reads(), t.Plain(), polls)
		}
		if changed {
			ask(d.wanted)
		}
	}
}

// reads tells whether a process is in a read of the terminal. Readers hold a lock, for which
// a read of nothing does not wait.
func (t *Terminal) reads() bool {
	var err error
	t.control(func(fd int) { _, err = unix.Read(fd, nil) })
	return err == unix.EAGAIN
}

// Begin has the terminal looked at: a process may have begun to use it otherwise than by
// waiting for it.
func (t *Terminal) Begin() {
	select {
	case t.begins <- struct{}{}:
	default:
	}
}

// Plain tells whether the terminal edits and echoes lines, as at first.
func (t *Terminal) Plain() bool {
	const usual = unix.ICANON | unix.ECHO
	flags := uint32(usual)
	t.control(func(fd int) {
		if now, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			flags = now.Lflag
		}
	})
	return flags&usual == usual
}

func (t *Terminal) control(f func(fd int)) { control(t.tty, f) }

func control(file *os.File, f func(fd int)) {
	if rc, err := file.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// polls tells whether a thread sleeps in a system call that waits for files.
func polls(w waiter) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", w.pid, w.tid))
	if err != nil {
		return false
	}
	word, _, _ := strings.Cut(string(b), " ")
	n, err := strconv.Atoi(word)
	return err == nil && pollCalls[n]
}
