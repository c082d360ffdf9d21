package guest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// pipes is a Dialer whose other ends are kept.
type pipes struct {
	l    net.Listener
	mu   sync.Mutex
	far  []net.Conn
	fail error
}

func (p *pipes) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return nil, p.fail
	}
	near, err := net.Dial("tcp", p.l.Addr().String()) // a net.Pipe would wait in an empty Write
	if err != nil {
		return nil, err
	}
	far, err := p.l.Accept()
	p.far = append(p.far, far)
	return near, err
}

func (p *pipes) dialed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.far)
}

func TestWarm(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &pipes{l: l}
	w := NewWarm(p)
	if c, err := w.Dial(t.Context(), ControlPort); err != nil || p.dialed() != 1 {
		t.Fatalf("another port: %v, %d dialed", err, p.dialed())
	} else {
		c.Close()
	}
	if c, err := w.Dial(t.Context(), ForwardPort); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	wait := func(n int) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); p.dialed() != n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d dialed, want %d", p.dialed(), n)
			}
		}
	}
	wait(2 + warmStreams)
	for { // all of them are there
		w.mu.Lock()
		n := len(w.idle)
		w.mu.Unlock()
		if n == warmStreams {
			break
		}
		time.Sleep(time.Millisecond)
	}
	p.mu.Lock()
	p.fail = errors.New("off")
	p.mu.Unlock()
	for i := range warmStreams {
		c, err := w.Dial(t.Context(), ForwardPort)
		if err != nil {
			t.Fatalf("stream %d of those that are open: %v", i, err)
		}
		c.Close()
	}
	if _, err := w.Dial(t.Context(), ForwardPort); err == nil {
		t.Error("a stream came from nowhere")
	}
	p.mu.Lock()
	p.fail = nil
	p.mu.Unlock()
	if c, err := w.Dial(t.Context(), ForwardPort); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	w.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range p.far {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stream %d is open: %v", i, err)
		}
	}
}
