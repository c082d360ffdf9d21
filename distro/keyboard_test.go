package distro

import (
	"errors"
	"io"
	"testing"
	"time"
)

// What is typed goes to who has the keyboard, and nothing is lost in between.
func TestKeyboard(t *testing.T) {
	user, ours := io.Pipe()
	k := newKeyboard(user)
	first, giveBack := k.lend()
	read := func(r io.Reader, want string) {
		t.Helper()
		b := make([]byte, len(want))
		if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
			t.Fatalf("read %q, %v; want %q", b, err, want)
		}
	}
	go ours.Write([]byte("one two"))
	read(first, "one ")
	// A read that is under way ends when it is given back.
	read(first, "two")
	ended := make(chan error)
	go func() {
		_, err := first.Read(make([]byte, 1))
		ended <- err
	}()
	giveBack()
	if err := <-ended; err != io.EOF {
		t.Errorf("the read ended with %v", err)
	}
	go ours.Write([]byte("three"))
	if n, err := first.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after it was given back: %d, %v", n, err)
	}
	second, giveBack := k.lend()
	read(second, "thr")
	giveBack()
	third, giveBack := k.lend()
	read(third, "ee")
	broken := errors.New("broken")
	ours.CloseWithError(broken)
	for range 2 { // it stays so
		if _, err := third.Read(make([]byte, 1)); err != broken {
			t.Errorf("at the end: %v", err)
		}
	}
	giveBack()
}

// Given back at the moment when a key is typed, it goes to the next.
func TestKeyboardRace(t *testing.T) {
	user, ours := io.Pipe()
	k := newKeyboard(user)
	typed, took := make(chan struct{}), 0
	go func() {
		defer close(typed)
		for range 200 {
			ours.Write([]byte("x"))
		}
		ours.Close()
	}()
	for ended := false; !ended; {
		r, giveBack := k.lend()
		done := make(chan struct{})
		go func() {
			defer close(done)
			n, err := r.Read(make([]byte, 1))
			took += n
			ended = err == io.EOF && took == 200
		}()
		select {
		case <-done:
		case <-time.After(time.Microsecond):
		}
		giveBack()
		<-done
	}
	<-typed
}
