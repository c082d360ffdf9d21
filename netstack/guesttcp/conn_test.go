package guesttcp

import (
	"errors"
	"os"
	"testing"
	"time"
)

// openConn is an established connection, with a window of size bytes.
func openConn(t *testing.T, l *Link, seq uint32, size uint32) *Conn {
	t.Helper()
	c := newConn(l, flow{80, FirstPort, false}, 1000, minBuffer)
	l.conns[c.flow] = c
	c.start()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.answered, c.mss, c.resendAt = stateOpen, true, maxSegment, time.Time{}
	c.una, c.edge, c.recovered = c.nxt, c.nxt+size, c.nxt
	c.rcv, c.acked, c.told = seq, seq, seq+uint32(c.room)
	t.Cleanup(func() { l.Close() })
	return c
}

// TestRoomInBetween has the guest offer room between Send's refusal and the entry in the
// list. The link will get no call of Room for it.
func TestRoomInBetween(t *testing.T) {
	refuse := false
	l := New(Config{Card: cardFunc(func(...[]byte) bool {
		refuse = !refuse
		return !refuse
	})})
	c := openConn(t, l, 1, 1<<20)
	c.SetWriteDeadline(time.Now().Add(10 * time.Second))
	for i := range 5 {
		if _, err := c.Write([]byte("word")); err != nil {
			t.Fatalf("write %d: %v", i+1, err)
		}
	}
}

// TestResetWaits has a reset wait for room.
func TestResetWaits(t *testing.T) {
	full := true
	var flags []byte
	l := New(Config{Card: cardFunc(func(parts ...[]byte) bool {
		if !full {
			flags = append(flags, parts[0][ipAt+ip4Len+13])
		}
		return !full
	})})
	c := openConn(t, l, 1, 1<<20)
	c.Close()
	full = false
	l.Room()
	l.Room()
	if len(flags) != 1 || flags[0] != flagRST|flagACK {
		t.Errorf("flags %#x, want one reset", flags)
	}
	if len(l.all()) != 0 {
		t.Error("the connection is still known")
	}
}

// TestEarlyBounds has a hostile guest send early segments of the smallest size.
func TestEarlyBounds(t *testing.T) {
	l := New(Config{Card: cardFunc(func(...[]byte) bool { return true })})
	c := openConn(t, l, 1, 1<<20)
	for i := range uint32(10000) {
		c.input(&segment{flow: c.flow, flags: flagACK, seq: c.rcv + 1 + 2*i, ack: c.nxt, window: 100, n: 1, payload: [][]byte{{'x'}}})
	}
	held := 0
	for _, e := range c.early {
		held += e.data.cost
	}
	if held > c.room || held == 0 {
		t.Errorf("%d bytes of memory are held, of %d", held, c.room)
	}
}

// TestSmallWrites sends small segments to a guest that acknowledges nothing. The limit counts
// their memory, not their bytes.
func TestSmallWrites(t *testing.T) {
	l := New(Config{Card: cardFunc(func(...[]byte) bool { return true })})
	c := openConn(t, l, 1, 1<<20)
	defer func() {
		c.input(&segment{flow: c.flow, flags: flagACK, seq: c.rcv, ack: c.una + 1, window: 100})
		c.input(&segment{flow: c.flow, flags: flagACK, seq: c.rcv, ack: c.nxt, window: 100})
		if c.held != 0 {
			t.Errorf("%d bytes are held, though all is acknowledged", c.held)
		}
	}()
	c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	var err error
	for n := 0; err == nil && n < 10000; n++ {
		_, err = c.Write([]byte("x"))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.held > c.room+chunkCost {
		t.Errorf("%d bytes of memory are held, of %d: %v", c.held, c.room, err)
	}
}

// TestThirdGiB: without loss nothing is sent again, however much was sent since.
func TestThirdGiB(t *testing.T) {
	frames := 0
	l := New(Config{Card: cardFunc(func(...[]byte) bool {
		frames++
		return true
	})})
	c := openConn(t, l, 1, 1<<20)
	for range 3 << 10 {
		c.mu.Lock()
		c.nxt += 1 << 20 // as if it had been sent
		c.mu.Unlock()
		before := frames
		c.input(&segment{flow: c.flow, flags: flagACK, seq: c.rcv, ack: c.nxt - 1<<19, window: 1 << 15})
		c.input(&segment{flow: c.flow, flags: flagACK, seq: c.rcv, ack: c.nxt, window: 1 << 15})
		if frames != before {
			t.Fatalf("%d frames are sent again", frames-before)
		}
	}
}
