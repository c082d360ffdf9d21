package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// signals decides what SIGINT and the like do: they interrupt lsub, or while a
// command of a distro runs, are passed on to it.
type signals struct {
	caught chan os.Signal
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	forward chan<- int // nil while they interrupt
	tty     bool       // the command has our terminal: its end interrupts
	delayed bool       // nobody knows yet which of both
	number  int        // of the signal that interrupted
	repeats int        // of interrupts that were passed on
	grace   *time.Timer
}

// maxRepeats is how often an interrupt is passed on before it cuts the command
// off: it may be one that ignores it, or a VM that does not listen.
const maxRepeats = 5

// termGrace is how long a command has to end after a SIGTERM that was passed on. Then it is
// cut off: who sends SIGTERM to lsub (timeout, a CI runner) wants lsub to end.
const termGrace = 10 * time.Second

// signalDelay is how long the message that a command runs may be under way.
const signalDelay = 500 * time.Millisecond

// catchSignals returns a context that ends when lsub is interrupted.
func catchSignals(ctx context.Context) (context.Context, *signals) {
	ctx, cancel := context.WithCancel(ctx)
	s := &signals{caught: make(chan os.Signal, 8), cancel: cancel, ended: make(chan struct{})}
	signal.Notify(s.caught, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go s.run()
	return ctx, s
}

func (s *signals) run() {
	defer close(s.ended)
	for sig := range s.caught {
		if n, ok := sig.(syscall.Signal); ok {
			s.caughtNow(int(n))
		}
	}
}

// caughtNow handles a signal, at once or in a moment.
func (s *signals) caughtNow(n int) {
	s.mu.Lock()
	delayed := s.delayed
	s.mu.Unlock()
	if delayed {
		time.AfterFunc(signalDelay, func() { s.handle(n) })
	} else {
		s.handle(n)
	}
}

func (s *signals) handle(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hungUp := s.tty && n == int(syscall.SIGHUP)
	if s.forward != nil && !hungUp && s.repeats < maxRepeats {
		select {
		case s.forward <- n:
			if n == int(syscall.SIGINT) || n == int(syscall.SIGTERM) {
				s.repeats++
			}
			if n == int(syscall.SIGTERM) && s.grace == nil {
				s.grace = time.AfterFunc(termGrace, func() { s.interrupt(n) })
			}
			return
		default: // nobody takes them
		}
	}
	s.interruptLocked(n)
}

// interrupt ends lsub for a signal that its command has not heeded in time.
func (s *signals) interrupt(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forward != nil {
		s.interruptLocked(n)
	}
}

func (s *signals) interruptLocked(n int) {
	if s.number == 0 {
		s.number = n
	}
	s.cancel()
}

// passTo passes the signals to ch from now on; nil has them interrupt again. Where the
// command has our terminal, SIGHUP interrupts all the same: the guest hangs the command up.
func (s *signals) passTo(ch chan<- int, tty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forward, s.tty, s.repeats, s.delayed = ch, tty, 0, false
	if s.grace != nil {
		s.grace.Stop()
		s.grace = nil
	}
}

// delay has signals wait a moment before they interrupt: the command may run
// already, and only the message that it does be under way.
func (s *signals) delay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delayed = true
}

// code is the exit status where a signal interrupted lsub, or 0.
func (s *signals) code() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.number == 0 {
		return 0
	}
	return 128 + s.number
}

func (s *signals) stop() {
	signal.Stop(s.caught)
	close(s.caught)
	<-s.ended
	s.cancel()
}
