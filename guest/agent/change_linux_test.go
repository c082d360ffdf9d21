package agent

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/lsub/lsub/guest/guestv1"
)

// Two changes of a distro follow each other, and a start waits for both.
func TestWhileStopped(t *testing.T) {
	a := &Agent{distros: map[string]*distro{}, fileLocks: map[string]chan struct{}{}}
	inFirst, goOn := make(chan struct{}), make(chan struct{})
	order := make(chan string, 3)
	done := make(chan error, 2)
	go func() {
		_, err := a.whileStopped(t.Context(), "one", time.Minute, func() error {
			close(inFirst)
			<-goOn
			order <- "first"
			return nil
		})
		done <- err
	}()
	<-inFirst
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.whileStopped(ctx, "one", time.Second, func() error { order <- "never"; return nil }); err == nil {
		t.Error("who has left meanwhile got its turn")
	}
	if _, err := a.whileStopped(t.Context(), "other", time.Second, func() error { return nil }); err != nil {
		t.Errorf("another distro: %v", err)
	}
	go func() {
		_, err := a.whileStopped(t.Context(), "one", time.Second, func() error { order <- "second"; return nil })
		done <- err
	}()
	close(goOn)
	for _, want := range []string{"first", "second"} {
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := <-order; got != want {
			t.Errorf("%s comes before %s", got, want)
		}
	}
	if len(a.fileLocks) != 0 {
		t.Errorf("still held: %v", a.fileLocks)
	}
}

// A distro that runs is stopped first, and the one that starts in between waits.
func TestWhileStoppedRuns(t *testing.T) {
	d := &distro{ready: make(chan struct{}), gone: make(chan struct{}), stopping: true} // somebody stops it already
	close(d.ready)
	a := &Agent{distros: map[string]*distro{"one": d}, fileLocks: map[string]chan struct{}{}}
	done := make(chan error, 1)
	go func() {
		_, err := a.whileStopped(t.Context(), "one", time.Second, func() error {
			select {
			case <-d.gone:
			default:
				t.Error("changed while it runs")
			}
			return nil
		})
		done <- err
	}()
	for held := false; !held; runtime.Gosched() {
		a.mu.Lock()
		held = a.fileLocks["one"] != nil
		a.mu.Unlock()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.start(ctx, &guestv1.Distro{Id: "one"}); err != context.Canceled {
		t.Errorf("a start meanwhile: %v", err)
	}
	close(d.gone)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
