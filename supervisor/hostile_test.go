package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest/guesttest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/guest/guestv1/guestv1connect"
	"github.com/lsub/lsub/profile"
)

// lies are the answers of an agent that means harm. Where one is nil, the fake's is given.
type lies struct {
	guestv1connect.GuestHandler
	info      func(*guestv1.InfoResponse)
	watch     func(*connect.ServerStream[guestv1.WatchResponse]) error
	listeners func(context.Context, *connect.ServerStream[guestv1.WatchListenersResponse]) error
}

func (l *lies) Info(ctx context.Context, req *connect.Request[guestv1.InfoRequest]) (*connect.Response[guestv1.InfoResponse], error) {
	res, err := l.GuestHandler.Info(ctx, req)
	if err == nil && l.info != nil {
		l.info(res.Msg)
	}
	return res, err
}

func (l *lies) Watch(ctx context.Context, req *connect.Request[guestv1.WatchRequest], out *connect.ServerStream[guestv1.WatchResponse]) error {
	if l.watch != nil {
		if err := l.watch(out); err != nil {
			return err
		}
	}
	return l.GuestHandler.Watch(ctx, req, out)
}

func (l *lies) WatchListeners(ctx context.Context, req *connect.Request[guestv1.WatchListenersRequest], out *connect.ServerStream[guestv1.WatchListenersResponse]) error {
	if l.listeners != nil {
		return l.listeners(ctx, out)
	}
	return l.GuestHandler.WatchListeners(ctx, req, out)
}

func (l *lies) told(h guestv1connect.GuestHandler) guestv1connect.GuestHandler {
	l.GuestHandler = h
	return l
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestHostileAgent drives a supervisor whose agent lies. Whatever it says, the supervisor's
// memory and log stay small, no distro is lost, and the VM can be shut down.
func TestHostileAgent(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	t.Run("an answer that is too long", func(t *testing.T) {
		m := openTest(t)
		l := &lies{info: func(res *guestv1.InfoResponse) {
			for range 64 {
				res.Images = append(res.Images, long)
			}
		}}
		_, err := supervise(t, m, guesttest.Options{Lie: l.told})
		if err == nil || !strings.Contains(err.Error(), "ask the guest for its distros") || len(err.Error()) > 4<<10 {
			t.Errorf("%.300v", err)
		}
	})
	t.Run("distros that are none", func(t *testing.T) {
		m := openTest(t)
		l := &lies{info: func(res *guestv1.InfoResponse) {
			res.Distros = append(res.Distros,
				&guestv1.DistroState{Id: "../../etc", Record: []byte(`{"name":"\u001b]52;c;eA==\u0007","id":"x"}`)},
				&guestv1.DistroState{Id: "real", Snapshots: []string{"\x1b[2J", long}, Record: []byte(long)})
		}}
		s, err := supervise(t, m, guesttest.Options{Lie: l.told})
		if err != nil {
			t.Fatal(err)
		}
		reg, err := m.Registry()
		if err != nil {
			t.Fatal(err)
		}
		if len(reg.Unregistered) != 1 || reg.Unregistered[0].ID != "real" || reg.Unregistered[0].Distro != nil {
			t.Errorf("kept aside: %.300v", fmt.Sprintf("%+v", reg.Unregistered))
		}
		if err := m.Shutdown(t.Context(), false); err != nil {
			t.Error(err)
		}
		<-s.ended
	})
	t.Run("a watch that breaks", func(t *testing.T) {
		m := openTest(t)
		var asked atomic.Int32
		l := &lies{watch: func(*connect.ServerStream[guestv1.WatchResponse]) error {
			if asked.Add(1) <= 2 {
				return errors.New("not now")
			}
			return nil
		}}
		s, err := supervise(t, m, guesttest.Options{Lie: l.told}, func(c *Config) { c.Idle = 50 * time.Millisecond })
		if err != nil {
			t.Fatal(err)
		}
		if err := <-s.ended; err != nil || asked.Load() < 3 { // the VM is idle, so it goes
			t.Errorf("%v after %d questions", err, asked.Load())
		}
	})
	t.Run("listeners without end", func(t *testing.T) {
		m := openTest(t)
		res := &guestv1.WatchListenersResponse{}
		for i := range 20000 {
			l := &guestv1.Listener{Network: "tcp", Address: "x\x1b[2J", Process: "\n"}
			if i%2 == 0 { // ports that the host may not have, so that none opens
				l.Address, l.Distro = fmt.Sprintf("127.0.0.1:%d", i%1000+1), "d"
			}
			res.Listeners = append(res.Listeners, l)
		}
		told := make(chan struct{}, 1)
		l := &lies{listeners: func(ctx context.Context, out *connect.ServerStream[guestv1.WatchListenersResponse]) error {
			for range 30 {
				if err := out.Send(res); err != nil {
					return err
				}
			}
			select {
			case told <- struct{}{}:
			default:
			}
			return errors.New("and again")
		}}
		log := &syncBuffer{}
		logger := slog.New(newLimitedHandler(slog.NewTextHandler(log, nil)))
		f, err := newForwarder(profile.Default(), m, &addresses{machine: m}, logger, func(string) string { return "" })
		if err != nil {
			t.Fatal(err)
		}
		s, err := supervise(t, m, guesttest.Options{Lie: l.told}, func(c *Config) { c.Forwarder = f })
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			<-told
		}
		if n := len(log.String()); n > 64<<10 {
			t.Errorf("the log has %d bytes", n)
		}
		var mem runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&mem)
		if mem.HeapAlloc > 256<<20 {
			t.Errorf("the heap has %d MiB", mem.HeapAlloc>>20)
		}
		if err := m.Shutdown(t.Context(), false); err != nil {
			t.Error(err)
		}
		<-s.ended
	})
	t.Run("names that reach a terminal", func(t *testing.T) {
		// The texts come as they are, for scripts; package printable is what a terminal gets.
		m := openTest(t)
		if _, err := supervise(t, m, guesttest.Options{HelloError: "\x1b]52;c;eA==\a\nlsub: error: forged"}); err == nil || !strings.Contains(err.Error(), "the VM does not come up") {
			t.Errorf("%v", err)
		}
	})
}
