package agent

import (
	"context"
	"errors"
	"testing"
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
