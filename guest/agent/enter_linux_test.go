package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeEntrance is an entrance whose thread has entered nothing.
func fakeEntrance() *entrance {
	e := &entrance{calls: make(chan func()), quit: make(chan struct{})}
	go func() {
		for {
			select {
			case f := <-e.calls:
				f()
			case <-e.quit:
				return
			}
		}
	}()
	return e
}

// A call that hangs is left behind, and what it returns later is not lost.
func TestCallHangs(t *testing.T) {
	e := fakeEntrance()
	hang, began := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	dropped := make(chan int)
	_, err := call(ctx, e, func() (int, error) {
		close(began)
		<-hang
		return 7, nil
	}, func(v int) { dropped <- v })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want the context's", err)
	}
	e.close() // does not wait
	close(hang)
	if v := <-dropped; v != 7 {
		t.Errorf("dropped %d, want 7", v)
	}
}

func TestReadSmall(t *testing.T) {
	dir := t.TempDir()
	fifo, big, good := filepath.Join(dir, "fifo"), filepath.Join(dir, "big"), filepath.Join(dir, "good")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(big, nil, 0o600)
	os.Truncate(big, 1<<30)
	os.WriteFile(good, []byte("A=b\n"), 0o600)
	for _, name := range []string{fifo, big, "/dev/zero", dir} {
		if _, err := readSmall(name); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	if b, err := readSmall(good); err != nil || string(b) != "A=b\n" {
		t.Errorf("%q, %v", b, err)
	}
}
