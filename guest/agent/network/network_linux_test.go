package network

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespace is a thread in a network namespace of its own.
type namespace struct {
	file  *os.File
	calls chan func()
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{calls: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.file, err = os.Open("/proc/thread-self/ns/net")
		}
		made <- err
		for f := range n.calls {
			f()
		}
	}()
	if err := <-made; err != nil {
		close(n.calls)
		t.Skipf("no network namespace can be made here: %v", err)
	}
	t.Cleanup(func() {
		close(n.calls)
		n.file.Close()
	})
	return n
}

// do calls f in the namespace. f must not end the test.
func (n *namespace) do(t *testing.T, f func() error) {
	t.Helper()
	if err := n.try(f); err != nil {
		t.Fatal(err)
	}
}

func (n *namespace) try(f func() error) error {
	done := make(chan error)
	n.calls <- func() { done <- f() }
	return <-done
}

// serve answers with a word in a namespace.
func (n *namespace) serve(t *testing.T, at, word string) {
	t.Helper()
	n.do(t, func() error {
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s to %s", word, c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}()
		return nil
	})
}

// hear returns what a server says, or "" where there is none within patience.
func (n *namespace) hear(t *testing.T, at string, patience time.Duration) string {
	t.Helper()
	var said []byte
	n.do(t, func() error {
		c, err := net.DialTimeout("tcp", at, patience)
		if err != nil {
			return nil
		}
		defer c.Close()
		said, err = io.ReadAll(c)
		return err
	})
	return string(said)
}

// TestAttach has two distros, the VM and a machine outside talk to each other.
func TestAttach(t *testing.T) {
	outside, vm, web, api := newNamespace(t), newNamespace(t), newNamespace(t), newNamespace(t)
	v := VM{Address: netip.MustParsePrefix("10.77.3.2/24"), Gateway: netip.MustParseAddr("10.77.3.1"), MTU: 1500}
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: Card}, PeerName: "lan", PeerNamespace: netlink.NsFd(int(outside.file.Fd()))}
	if err := vm.try(func() error { return netlink.LinkAdd(cable) }); err != nil {
		t.Skipf("no pair of cards can be made here: %v", err)
	}
	vm.do(t, v.SetUp)
	outside.do(t, func() error {
		lan, err := netlink.LinkByName("lan")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lan, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(v.Gateway, 24))}); err != nil {
			return err
		}
		return netlink.LinkSetUp(lan)
	})
	webAt, apiAt := netip.MustParseAddr("10.77.3.7"), netip.MustParseAddr("10.77.3.8")
	for n, addr := range map[*namespace]netip.Addr{web: webAt, api: apiAt} {
		vm.do(t, func() error { return v.Attach(n.file, addr) })
		n.do(t, func() error { return v.SetUpDistro(addr) })
	}
	for n, word := range map[*namespace]string{outside: "outside", vm: "vm", web: "web", api: "api"} {
		n.serve(t, "0.0.0.0:80", word)
	}
	vm.serve(t, "127.0.0.1:81", "the VM's loopback")
	for _, c := range []struct {
		who      *namespace
		at, want string
	}{
		{web, "10.77.3.1:80", "outside to 10.77.3.7"},
		{web, "10.77.3.2:80", "vm to 10.77.3.7"},
		{web, "10.77.3.8:80", "api to 10.77.3.7"},
		{web, "10.77.3.7:80", "web to 10.77.3.7"},
		{api, "127.0.0.1:80", "api to 127.0.0.1"},
		{vm, "10.77.3.7:80", "web to 10.77.3.2"},
		{vm, "10.77.3.8:80", "api to 10.77.3.2"},
		{outside, "10.77.3.8:80", "api to 10.77.3.1"},
		{outside, "10.77.3.2:80", "vm to 10.77.3.1"},
		{vm, "127.0.0.1:81", "the VM's loopback to 127.0.0.1"},
		{web, "127.0.0.1:81", ""},
		{web, "10.77.3.2:81", ""},
		{web, "10.77.3.9:80", ""}, // nobody's
	} {
		patience := 10 * time.Second
		if c.want == "" {
			patience = 200 * time.Millisecond
		}
		if got := c.who.hear(t, c.at, patience); got != c.want {
			t.Errorf("at %s: %q, want %q", c.at, got, c.want)
		}
	}
	vm.do(t, func() error {
		// A second distro at an address takes over what the first left.
		if err := v.Attach(api.file, webAt); err == nil {
			t.Error("a distro has two cards")
		}
		for range 2 {
			for _, addr := range []netip.Addr{webAt, apiAt} {
				if err := v.Detach(addr); err != nil {
					return err
				}
			}
		}
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		if len(links) != 2 { // lo and eth0
			t.Errorf("left: %v", links)
		}
		return nil
	})
	if got := vm.hear(t, "10.77.3.7:80", 200*time.Millisecond); got != "" {
		t.Errorf("a distro that is gone says %q", got)
	}
}

// TestSetUpDistroAlone is that of a VM without a network.
func TestSetUpDistroAlone(t *testing.T) {
	n := newNamespace(t)
	var v VM
	n.do(t, func() error { return v.Attach(n.file, netip.Addr{}) })
	n.do(t, func() error { return v.SetUpDistro(netip.Addr{}) })
	n.do(t, func() error { return v.Detach(netip.Addr{}) })
	n.serve(t, "[::1]:80", "alone")
	if got := n.hear(t, "[::1]:80", 10*time.Second); got != "alone to ::1" {
		t.Errorf("on its loopback: %q", got)
	}
}
