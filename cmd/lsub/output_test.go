package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"nginx": "nginx", "a\nb\tc": "a\nb\tc", "\x1b]0;pwn\a\x1b[31mQ": "?]0;pwn??[31mQ", "\xff\u009b1m": "??1m", "Zoë": "Zoë",
	} {
		if got := printable(text); got != want {
			t.Errorf("printable(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	for image, want := range map[string]string{
		"debian:trixie": "debian:trixie",
		"file:/root/.cache/lsub/images/blobs/sha256-ee81f7a7.tar.zst": "file:/root/.ca…blobs/sha256-ee81f7a7.tar.zst",
		strings.Repeat("ä", 44): strings.Repeat("ä", 44),
	} {
		if got := shorten(image); got != want {
			t.Errorf("%s: %s (%d characters), want %s", image, got, len([]rune(got)), want)
		}
	}
}
