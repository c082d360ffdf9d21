package nsthread

import (
	"context"
	"errors"
	"testing"
)

// A call that hangs is left behind, and what it returns later is not lost.
func TestCallHangs(t *testing.T) {
	thread, err := New(func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	hang, began := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	dropped := make(chan int)
	_, err = Call(ctx, thread, func() (int, error) {
		close(began)
		<-hang
		return 7, nil
	}, func(v int) { dropped <- v })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want the context's", err)
	}
	thread.Close() // does not wait
	close(hang)
	if v := <-dropped; v != 7 {
		t.Errorf("dropped %d, want 7", v)
	}
}
