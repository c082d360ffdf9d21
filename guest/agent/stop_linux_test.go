package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsub/lsub/guest/guestv1"
)

// A distro whose init takes for ever to come up, as its own files may have it, is given up
// when it is to stop; and one that nothing ends holds up nobody for long.
func TestStopWhileStarting(t *testing.T) {
	for _, heeds := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := &distro{
				a: &Agent{log: slog.New(slog.DiscardHandler)}, spec: &guestv1.Distro{Name: "d"},
				ready: make(chan struct{}), gone: make(chan struct{}),
			}
			d.starting, d.cancelStart = context.WithCancel(t.Context())
			if heeds {
				context.AfterFunc(d.starting, func() {
					d.err = errors.New("stopped")
					close(d.ready)
					close(d.gone)
				})
			}
			begin := time.Now()
			killed := d.stop(stopGrace)
			took := time.Since(begin)
			if want := map[bool]time.Duration{true: stopGrace, false: stopGrace + killWait}[heeds]; took != want || killed == heeds {
				t.Errorf("a start that heeds its end: %v; after %v, killed: %v", heeds, took, killed)
			}
			d.cancelStart()
		})
	}
}
