package listeners

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// newNetns makes a network namespace, and a thread in it.
func newNetns(t *testing.T, distro string) *Netns {
	t.Helper()
	calls, made := make(chan func()), make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine
		made <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range calls {
			f()
		}
	}()
	t.Cleanup(func() { close(calls) })
	if err := <-made; err != nil {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	return &Netns{Distro: distro, Do: func(f func() error) error {
		done := make(chan error)
		calls <- func() { done <- f() }
		return <-done
	}}
}

// TestViews looks at two network namespaces, one of which goes.
func TestViews(t *testing.T) {
	v, err := openViews()
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	if _, _, err := v[nil].dump(); errors.Is(err, unix.ENOENT) {
		t.Skip("this kernel has no sock_diag for inet")
	}
	web, late := newNetns(t, "web-1"), &Netns{Distro: "late-1", Do: func(func() error) error { return errors.New("it is gone") }}
	if !v.adjust([]*Netns{web, late}) || len(v) != 2 {
		t.Fatalf("%d views", len(v))
	}
	if v.adjust([]*Netns{web, late}) {
		t.Error("the same namespaces are a change")
	}
	const at = "0.0.0.0:80"
	listens := func(s *Netns) bool {
		tcp, _, err := v[s].dump()
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(tcp, func(s socket) bool { return s.addr == netip.MustParseAddrPort(at) })
	}
	before := listens(nil)
	var l net.Listener
	if err := web.Do(func() (err error) { l, err = net.Listen("tcp4", at); return err }); err != nil {
		t.Fatal(err)
	}
	if !listens(web) || listens(nil) != before {
		t.Errorf("it listens in web: %v, in the VM: %v (before: %v)", listens(web), listens(nil), before)
	}
	l.Close()
	if listens(web) {
		t.Error("it listens after its end")
	}
	if !v.adjust(nil) || len(v) != 1 {
		t.Errorf("%d views after the namespace is gone", len(v))
	}
}
