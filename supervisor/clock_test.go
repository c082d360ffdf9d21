package supervisor

import (
	"testing"
	"time"

	"github.com/lsub/lsub/guest/guesttest"
)

// TestClock has a guest whose clock is late be told so at once.
func TestClock(t *testing.T) {
	for _, late := range []time.Duration{time.Hour, -3 * time.Second} {
		moved := make(chan time.Duration, 1)
		m := openTest(t)
		s, err := supervise(t, m, guesttest.Options{Late: late, Moved: func(d time.Duration) { moved <- d }})
		if err != nil {
			t.Fatal(err)
		}
		if left := <-moved; left.Abs() > time.Second { // the call takes some time
			t.Errorf("a clock that is late by %v is late by %v once it was moved", late, left)
		}
		s.stop()
		<-s.ended
	}
}

func TestClockLate(t *testing.T) {
	start := time.Now()
	for _, c := range []struct{ took, shows, want time.Duration }{
		{2 * time.Millisecond, time.Millisecond, 0},
		{2 * time.Millisecond, 5 * time.Millisecond, 0},                 // noise
		{time.Second, 0, 0},                                             // it may have looked at once
		{time.Second, time.Second, 0},                                   // or at the end
		{time.Second, -time.Second, 1500 * time.Millisecond},            // late however long the call's parts took
		{2 * time.Millisecond, time.Hour, time.Millisecond - time.Hour}, // early
	} {
		if got := clockLate(start, c.took, start.Add(c.shows).UnixNano()); got != c.want {
			t.Errorf("took %v, shows %v: %v, want %v", c.took, c.shows, got, c.want)
		}
	}
}

func TestMissed(t *testing.T) {
	now := time.Now().Round(0)
	for name, c := range map[string]struct {
		wall, ran time.Duration
		want      bool
	}{
		"nothing":              {clockLook, clockLook, false},
		"a busy host":          {clockLook * 3 / 2, clockLook * 3 / 2, false},
		"the host slept":       {time.Hour, clockLook, true},
		"its clock was set":    {clockLook - time.Minute, clockLook, true},
		"everything was still": {time.Minute, time.Minute, true},
	} {
		if got := missed(moment{now, time.Hour}, moment{now.Add(c.wall), time.Hour + c.ran}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
