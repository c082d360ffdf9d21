package main

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// TestStatusSoon shows nothing of what is quick.
func TestStatusSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &statusLine{w: &out}
		wants := func(want string) {
			t.Helper()
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			if out.String() != want {
				t.Errorf("%q, want %q", &out, want)
			}
			out.Reset()
		}
		s.setSoon("starting")
		wants("")
		s.clear()
		time.Sleep(2 * soon)
		wants("")
		s.setSoon("starting")
		time.Sleep(soon)
		wants("\r\x1b[Kstarting…")
		s.setSoon("more") // in place of what is there
		wants("\r\x1b[Kmore…")
		s.clear()
		wants("\r\x1b[K")
	})
}

// TestSignalsHold has a signal come just before the word that a command runs.
func TestSignalsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cancelled := false
		s := &signals{cancel: func() { cancelled = true }}
		ch := make(chan int, 1)
		s.delay()
		s.caughtNow(2)
		s.passTo(ch, false)
		time.Sleep(signalDelay)
		synctest.Wait()
		if len(ch) != 1 || cancelled {
			t.Errorf("%d passed on, interrupted: %v", len(ch), cancelled)
		}
		s.passTo(nil, false)
		s.delay()
		s.caughtNow(2)
		time.Sleep(signalDelay)
		synctest.Wait()
		if !cancelled || s.code() != 130 {
			t.Errorf("not interrupted; code %d", s.code())
		}
	})
}

// TestSignalsTerm has a command that ignores SIGTERM, and one that ends by it.
func TestSignalsTerm(t *testing.T) {
	for _, ignores := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var cancelled atomic.Bool
			s := &signals{cancel: func() { cancelled.Store(true) }}
			ch := make(chan int, 1)
			s.passTo(ch, true)
			s.caughtNow(15)
			time.Sleep(termGrace / 2)
			if len(ch) != 1 || cancelled.Load() {
				t.Errorf("%d passed on, interrupted: %v", len(ch), cancelled.Load())
			}
			if !ignores {
				s.passTo(nil, false)
			}
			time.Sleep(termGrace)
			synctest.Wait()
			if cancelled.Load() != ignores || ignores && s.code() != 143 {
				t.Errorf("it ignores the signal: %v; interrupted: %v, code %d", ignores, cancelled.Load(), s.code())
			}
		})
	}
}

// TestSignalsHangUp has the terminal end: a command that has it is cut off, and any other
// gets the signal.
func TestSignalsHangUp(t *testing.T) {
	cancelled := false
	s := &signals{cancel: func() { cancelled = true }}
	ch := make(chan int, 1)
	s.passTo(ch, false)
	s.caughtNow(1)
	if len(ch) != 1 || cancelled {
		t.Errorf("without a terminal: %d passed on, interrupted: %v", len(ch), cancelled)
	}
	<-ch
	s.passTo(ch, true)
	s.caughtNow(1)
	if len(ch) != 0 || !cancelled || s.code() != 129 {
		t.Errorf("at a terminal: %d passed on, interrupted: %v, code %d", len(ch), cancelled, s.code())
	}
}

func TestShorten(t *testing.T) {
	for image, want := range map[string]string{
		"debian:trixie": "debian:trixie",
		"file:/root/.cache/lsub/images/blobs/sha256-ee81f7a7.tar.zst":                           "file:/root/.ca…blobs/sha256-ee81f7a7.tar.zst",
		"debian:trixie?include=bind9-dnsutils,ca-certificates,curl,python3,socat,tmux,vim-tiny": "debian:trixie with bind9-dnsutils +6",
		"debian:trixie?include=git,curl,jq,python3,socat,tmux,vim-tiny":                         "debian:trixie with git, curl, jq, python3 +3",
		"debian:trixie?include=" + strings.Repeat("x", 40) + ",y":                               "debian:trixie with 2 packages",
		strings.Repeat("ä", 44): strings.Repeat("ä", 44),
	} {
		if got := shorten(image); got != want {
			t.Errorf("%s: %s (%d characters), want %s", image, got, len([]rune(got)), want)
		}
	}
}

// What a guest says reaches a terminal as text alone: errors, advice, notes and tables.
func TestGuestText(t *testing.T) {
	var b bytes.Buffer
	a := &app{stderr: &b, status: &statusLine{}}
	a.printError(guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "\x1b]52;c;Y3VybA==\a\nlsub: error: forged", "no\x1b[2J\nlsub: hint: forged"))
	a.note("warning", "one\x1b[2J\n  two\nthree")
	err := table(&b, portRows([]listedPort{{Kind: "auto", Network: "tcp", Host: []string{"127.0.0.1:1"}, Guest: "g", Process: "x\ntcp localhost:22   ->   debian", State: "open"}}))
	if err != nil {
		t.Error(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\a") {
		t.Errorf("a terminal would obey it: %q", &b)
	}
	for _, line := range strings.Split(b.String(), "\n") {
		if strings.HasPrefix(line, "lsub: ") && strings.Contains(line, "forged") || strings.HasPrefix(line, "tcp localhost:22") {
			t.Errorf("a forged line: %q", line)
		}
	}
}
