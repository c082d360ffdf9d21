package vhostvsock

import "testing"

func TestCredit(t *testing.T) {
	for _, c := range []struct{ alloc, sent, fwd, want uint32 }{
		{100, 0, 0, 100},
		{100, 60, 10, 50},
		{100, 5, 1<<32 - 5, 90}, // wrapped
		{100, 0, 1, 0},          // took more than was sent
		{10, 60, 10, 0},         // shrank its buffer
	} {
		if got := credit(c.alloc, c.sent, c.fwd); got != c.want {
			t.Errorf("credit(%d, %d, %d) = %d, want %d", c.alloc, c.sent, c.fwd, got, c.want)
		}
	}
}
