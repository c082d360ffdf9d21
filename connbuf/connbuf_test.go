package connbuf

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestBuffer does what a connection does, beside a slice that grows.
func TestBuffer(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var b Buffer
	var want []byte
	next := byte(0)
	for range 20000 {
		switch rnd.IntN(4) {
		case 0, 1:
			var iov [][]byte
			n := 0
			for range rnd.IntN(4) {
				p := make([]byte, rnd.IntN(3000))
				for i := range p {
					p[i] = next
					next++
				}
				iov = append(iov, p)
				n += len(p)
			}
			if n > 0 {
				n -= rnd.IntN(n) // iov may hold more than is to be taken
			}
			b.Append(iov, n)
			want = append(want, bytes.Join(iov, nil)[:n]...)
		case 2:
			p := make([]byte, rnd.IntN(5000))
			n := b.Take(p)
			if n != min(len(p), len(want)) || !bytes.Equal(p[:n], want[:n]) {
				t.Fatalf("%d bytes of %d come out, or other ones", n, len(want))
			}
			want = want[n:]
		case 3:
			if b.Len() == 0 {
				continue
			}
			lent := b.Lend()
			if len(lent) == 0 || !bytes.Equal(lent, want[:len(lent)]) {
				t.Fatalf("%d bytes are lent, or other ones", len(lent))
			}
			// What is lent stays as it is, whatever comes.
			was := bytes.Clone(lent)
			more := bytes.Repeat([]byte{next}, rnd.IntN(20000))
			b.Append([][]byte{more}, len(more))
			want = append(want, more...)
			if !bytes.Equal(lent, was) {
				t.Fatal("what was lent has changed")
			}
			b.Return()
			n := rnd.IntN(len(lent) + 1)
			b.Consume(n)
			want = want[n:]
		}
		if b.Len() != len(want) {
			t.Fatalf("%d bytes, want %d", b.Len(), len(want))
		}
		if b.Len() > 1<<20 {
			b.Reset()
			want = nil
		}
	}
	b.Reset()
	if b.Len() != 0 || b.arr != nil {
		t.Error("an empty buffer holds memory")
	}
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		cond := sync.NewCond(&mu)
		d := Deadline{Cond: cond}
		wait := func() time.Duration {
			start := time.Now()
			for !d.Passed() {
				cond.Wait()
			}
			return time.Since(start)
		}
		mu.Lock()
		defer mu.Unlock()
		d.Set(time.Now().Add(time.Second))
		if got := wait(); got != time.Second {
			t.Errorf("waited %v", got)
		}
		d.Set(time.Now().Add(time.Second))
		if d.Passed() {
			t.Error("a new time has passed already")
		}
		d.Set(time.Now().Add(time.Minute)) // the one before is forgotten
		if got := wait(); got != time.Minute {
			t.Errorf("waited %v", got)
		}
		d.Set(time.Now().Add(-time.Second))
		if !d.Passed() {
			t.Error("a time that is over has not passed")
		}
		d.Set(time.Now().Add(time.Second))
		d.Stop()
		mu.Unlock()
		time.Sleep(time.Hour)
		mu.Lock()
		if d.Passed() {
			t.Error("a time that was forgotten has passed")
		}
	})
}
