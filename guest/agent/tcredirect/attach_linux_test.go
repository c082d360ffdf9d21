package tcredirect_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/tcredirect"
	"github.com/lsub/lsub/guest/agent/tcredirect/tcredirecttest"
)

const patience = 20 * time.Second

var (
	local4 = netip.MustParseAddr("127.0.0.1")
	local6 = netip.MustParseAddr("::1")
)

// network is a namespace, and the frames that came out of it.
type network struct {
	*tcredirecttest.Namespace
	t      *testing.T
	frames chan []byte
}

func newNetwork(t *testing.T) *network {
	n := &network{Namespace: tcredirecttest.New(t), t: t, frames: make(chan []byte, 1000)}
	n.Receive(func(parts [][]byte) { n.frames <- bytes.Join(parts, nil) }, func() {})
	return n
}

// listen listens in the namespace.
func (n *network) listen(at string) net.Listener {
	n.t.Helper()
	var l net.Listener
	var err error
	n.Do(func() { l, err = net.Listen("tcp", at) })
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { l.Close() })
	return l
}

func port(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

// set changes a setting of the namespace.
func (n *network) set(name, value string) {
	n.t.Helper()
	var err error
	n.Do(func() { err = os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) })
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *network) get(name string) string {
	n.t.Helper()
	var b []byte
	var err error
	n.Do(func() { b, err = os.ReadFile("/proc/sys/net/" + name) })
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// quiet wants no frame to have come out of the namespace.
func (n *network) quiet() {
	n.t.Helper()
	select {
	case f := <-n.frames:
		n.t.Errorf("came out: %x", f)
	default:
	}
}

// next waits for a frame of a peer's connection.
func (p *peer) next() segment {
	p.t.Helper()
	select {
	case f := <-p.frames:
		s, err := parse(f)
		if err != nil {
			p.t.Fatalf("%v: %x", err, f)
		}
		if s.to != netip.AddrPortFrom(p.addr, p.source) || s.from != netip.AddrPortFrom(p.addr, p.dest) {
			p.t.Fatalf("from %v to %v, want from port %d to %d", s.from, s.to, p.dest, p.source)
		}
		return s
	case <-time.After(patience):
		p.t.Fatal("nothing comes")
		panic("unreachable")
	}
}

// dial shakes hands.
func (n *network) dial(addr netip.Addr, source, dest uint16) *peer {
	n.t.Helper()
	p := &peer{network: n, addr: addr, source: source, dest: dest, seq: 1000}
	p.send(flagSYN, nil)
	p.seq++
	if s := p.next(); s.flags != flagSYN|flagACK || s.ack != p.seq {
		n.t.Fatalf("answer to SYN: %+v", s)
	} else {
		p.ack = s.seq + 1
	}
	p.send(flagACK, nil)
	return p
}

// receive takes bytes of the other end, until there are size.
func (p *peer) receive(size int) []byte {
	p.t.Helper()
	var got []byte
	for len(got) < size {
		s := p.next()
		if s.flags&flagRST != 0 {
			p.t.Fatal("reset")
		}
		if s.seq != p.ack {
			continue // sent again
		}
		got = append(got, s.data...)
		p.ack += uint32(len(s.data))
		if len(s.data) > 0 {
			p.send(flagACK, nil)
		}
	}
	return got
}

// finish ends a connection that the other end has ended, or ends on this FIN.
func (p *peer) finish() {
	p.t.Helper()
	p.send(flagFIN|flagACK, nil)
	p.seq++
	for fin := false; !fin; {
		s := p.next()
		fin = s.flags&flagFIN != 0
	}
	p.ack++
	p.send(flagACK, nil)
}

// echo sends back what the first connection of a listener sends, and says who sent it.
func echo(l net.Listener) <-chan string {
	who := make(chan string, 1)
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	go func() {
		c, err := l.Accept()
		if err != nil {
			who <- err.Error()
			return
		}
		defer c.Close()
		who <- c.RemoteAddr().String()
		io.Copy(c, c)
	}()
	return who
}

func TestConnect(t *testing.T) {
	for _, c := range []struct {
		listen string
		addr   netip.Addr
	}{
		{"127.0.0.1:0", local4}, {"0.0.0.0:0", local4}, {"[::]:0", local4}, {"[::1]:0", local6}, {"[::]:0", local6},
	} {
		for _, sum := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s from %s, whole checksums %v", c.listen, c.addr, sum), func(t *testing.T) {
				n := newNetwork(t)
				l := n.listen(c.listen)
				who := echo(l)
				p := n.dial(c.addr, 61234, port(l))
				p.whole = sum
				if got, want := <-who, netip.AddrPortFrom(c.addr, 61234).String(); got != want {
					t.Fatalf("the peer is %s, want %s", got, want)
				}
				for _, size := range []int{1, 1000, 5000, 65000} {
					data := bytes.Repeat([]byte{byte(size), 7, 9}, size/3+1)[:size]
					p.send(flagACK|flagPSH, data)
					p.seq += uint32(size)
					if got := p.receive(size); !bytes.Equal(got, data) {
						t.Fatalf("%d bytes came back as %d others", size, len(got))
					}
				}
				p.finish()
			})
		}
	}
}

// TestFilter tries rp_filter at all its places: systems set it.
func TestFilter(t *testing.T) {
	for _, value := range []string{"0", "1", "2"} {
		for _, places := range []string{"all", "default", "lo", "all default lo " + tcredirecttest.Card} {
			n := newNetwork(t)
			for _, place := range strings.Fields(places) {
				n.set("ipv4/conf/"+place+"/rp_filter", value)
			}
			l := n.listen("127.0.0.1:0")
			who := echo(l)
			p := n.dial(local4, 62000, port(l))
			if got := <-who; got != "127.0.0.1:62000" {
				t.Errorf("rp_filter %s at %s: the peer is %s", value, places, got)
			}
			p.finish()
		}
	}
}

func TestRefused(t *testing.T) {
	n := newNetwork(t)
	for _, addr := range []netip.Addr{local4, local6} {
		p := &peer{network: n, addr: addr, source: 61000, dest: 9, seq: 5}
		p.send(flagSYN, nil)
		if s := p.next(); s.flags != flagRST|flagACK || s.ack != 6 {
			t.Errorf("%v: answer of a closed port: %+v", addr, s)
		}
	}
}

// TestAfterwards has connections outlast many others, and what is left of one be told so.
func TestAfterwards(t *testing.T) {
	n := newNetwork(t)
	quiet, busy := n.listen("127.0.0.1:0"), n.listen("127.0.0.1:0")
	who := echo(quiet)
	first := n.dial(local4, 61000, port(quiet))
	<-who
	for i := range 300 {
		who := echo(busy)
		p := n.dial(local4, uint16(61000+i), port(busy))
		<-who
		p.finish()
	}
	first.send(flagACK|flagPSH, []byte("still there"))
	first.seq += 11
	if got := first.receive(11); string(got) != "still there" {
		t.Errorf("%q", got)
	}
	first.send(flagRST, nil)
	first.send(flagACK|flagPSH, []byte("late"))
	for s := first.next(); s.flags&flagRST == 0; s = first.next() {
	}
}

// TestLocal has clients and servers of the namespace at the supervisor's ports, before and
// after it has used them.
func TestLocal(t *testing.T) {
	n := newNetwork(t)
	talk := func(from, to string) {
		t.Helper()
		l := n.listen(to)
		defer l.Close()
		who := echo(l)
		var c net.Conn
		var err error
		n.Do(func() {
			d := net.Dialer{Timeout: patience}
			d.LocalAddr, _ = net.ResolveTCPAddr("tcp", from)
			d.Control = reuse
			c, err = d.Dial("tcp", l.Addr().String())
		})
		if err != nil {
			t.Fatalf("from %s to %s: %v", from, to, err)
		}
		defer c.Close()
		if got := <-who; got != c.LocalAddr().String() {
			t.Errorf("from %s to %s: the peer is %s", from, to, got)
		}
		c.SetDeadline(time.Now().Add(patience))
		c.Write([]byte("hello"))
		c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "hello" {
			t.Errorf("from %s to %s: %q, %v", from, to, got, err)
		}
		n.quiet()
	}
	for range 2 {
		for _, addr := range []string{"127.0.0.1", "[::1]"} {
			talk(addr+":0", addr+":8080")
			talk(addr+":0", addr+":62000")
			talk(addr+":62001", addr+":8080")
			talk(addr+":62002", addr+":62000")
			var err error
			n.Do(func() { _, err = net.Dial("tcp", addr+":62003") })
			if err == nil {
				t.Error("a closed port answers")
			}
			n.quiet()
		}
		for _, addr := range []netip.Addr{local4, local6} {
			for _, source := range []uint16{62000, 62005} {
				l := n.listen(netip.AddrPortFrom(addr, 8080).String())
				who := echo(l)
				p := n.dial(addr, source, 8080)
				<-who
				// Who listens on the supervisor's port has no part in it.
				other := n.listen(netip.AddrPortFrom(addr, source).String())
				p.send(flagACK|flagPSH, []byte("hello"))
				p.seq += 5
				p.receive(5)
				p.send(flagRST, nil) // the port is free at once
				other.Close()
				l.Close()
			}
		}
	}
}

// reuse lets a client have a port whose last connection still waits.
func reuse(_, _ string, c rawConn) error {
	return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
}

// TestForeign sends to lo's address what is not the supervisor's.
func TestForeign(t *testing.T) {
	n := newNetwork(t)
	l := n.listen("[::]:0")
	good := &peer{network: n, addr: local4, source: 61000, dest: port(l), seq: 1}
	good6 := &peer{network: n, addr: local6, source: 61000, dest: port(l), seq: 1}
	self := &peer{network: n, addr: local4, source: 61000, dest: 61000}
	start := n.received()
	for name, f := range map[string][]byte{
		"a low port":            edit(good.frame(flagSYN, nil), 34, 0xee, 0x47),
		"a low port, IPv6":      edit(good6.frame(flagSYN, nil), 54, 0xee, 0x47),
		"another source":        edit(good.frame(flagSYN, nil), 26, 127, 0, 0, 2),
		"another destination":   edit(good.frame(flagSYN, nil), 30, 127, 0, 0, 2),
		"an address outside":    edit(good.frame(flagSYN, nil), 26, 192, 168, 127, 1),
		"another source, IPv6":  edit(good6.frame(flagSYN, nil), 22, 0xfe, 0x80),
		"another dest., IPv6":   edit(good6.frame(flagSYN, nil), 38, 0xfe, 0x80),
		"::2":                   edit(good6.frame(flagSYN, nil), 37, 2),
		"to ::2":                edit(good6.frame(flagSYN, nil), 53, 2),
		"UDP":                   edit(good.frame(flagSYN, nil), 23, 17),
		"ICMP":                  edit(good.frame(flagSYN, nil), 23, 1),
		"UDP, IPv6":             edit(good6.frame(flagSYN, nil), 20, 17),
		"a fragment":            edit(good.frame(flagSYN, nil), 20, 0x20, 0),
		"a later fragment":      edit(good.frame(flagSYN, nil), 20, 0, 9),
		"IP options":            edit(good.frame(flagSYN, nil), 14, 0x46),
		"ARP":                   edit(good.frame(flagSYN, nil), 12, 8, 6),
		"VLAN":                  edit(good.frame(flagSYN, nil), 12, 0x81, 0),
		"a frame without more":  good.frame(flagSYN, nil)[:14],
		"half a header":         good.frame(flagSYN, nil)[:53],
		"IPv6 without its TCP":  good6.frame(flagSYN, nil)[:54],
		"IPv6 with half a port": good6.frame(flagSYN, nil)[:57],
		"to its own port":       self.frame(flagSYN, nil),
		"to its own port, 6":    (&peer{network: n, addr: local6, source: 61000, dest: 61000}).frame(flagSYN, nil),
	} {
		before := n.received()
		n.Send(make([]byte, tcredirecttest.HeaderLen), fixSums(f))
		if n.received() != before {
			t.Errorf("%s is let in", name)
		}
	}
	// It is counted when it is let in:
	good.send(flagSYN, nil)
	good.next()
	if got := n.received() - start; got != 1 {
		t.Errorf("%d packets are let in, want 1", got)
	}
	// To the card's own address all may come as ever; the kernel finds these addresses odd.
	n.Send(make([]byte, tcredirecttest.HeaderLen), edit(good6.frame(flagSYN, nil), 0, n.mac()...))
	n.quiet()
}

// TestOrdinary has the card do what cards do.
func TestOrdinary(t *testing.T) {
	n := newNetwork(t)
	n.address("10.9.8.7")
	n.Send(make([]byte, tcredirecttest.HeaderLen), arpRequest("10.9.8.1", "10.9.8.7"))
	select {
	case f := <-n.frames:
		if want := n.mac(); !bytes.Equal(f[tcredirecttest.HeaderLen+6:][:6], want) {
			t.Errorf("the answer is %x, want from %x", f, want)
		}
	case <-time.After(patience):
		t.Error("nobody answers on the card")
	}
}

// TestEngine has a container engine publish a port of a container. What comes in for it from
// outside the engine leads to the container by itself; on loopback, there is a
// process of it that listens.
func TestEngine(t *testing.T) {
	n := newNetwork(t)
	container := map[netip.Addr]netip.Addr{local4: netip.MustParseAddr("172.17.0.2"), local6: netip.MustParseAddr("fd00::2")}
	var err error
	n.Do(func() { err = tcredirect.Publish(8080, container) })
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrNotExist) {
		t.Skipf("this kernel has no nftables: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.Redirect.Guarded()
	for _, addr := range []netip.Addr{local4, local6} {
		l := n.listen(netip.AddrPortFrom(addr, 8080).String())
		who := echo(l)
		p := n.dial(addr, 61000, 8080)
		<-who
		p.send(flagACK|flagPSH, []byte("hello"))
		p.seq += 5
		if got := p.receive(5); string(got) != "hello" {
			t.Errorf("%q", got)
		}
		p.finish()
	}
}

func TestReserved(t *testing.T) {
	const name = "ipv4/ip_local_reserved_ports"
	n := newNetwork(t)
	if got := n.get(name); got != "61000-65535" {
		t.Errorf("reserved: %s", got)
	}
	n.set(name, "70,8000-8010")
	attach := func() {
		n.Do(func() {
			d, err := tcredirect.Attach(tcredirecttest.Card, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Error(err)
				return
			}
			d.Close()
		})
	}
	attach()
	attach()
	if got := n.get(name); got != "70,8000-8010,61000-65535" {
		t.Errorf("reserved: %s", got)
	}
	// Clients do without the ports, however large their range is.
	n.set("ipv4/ip_local_port_range", "60998 65535")
	l := n.listen("127.0.0.1:8080")
	for range 2 {
		n.Do(func() {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
			if p := c.LocalAddr().(*net.TCPAddr).Port; p >= tcredirect.FirstPort {
				t.Error("a client has port " + strconv.Itoa(p))
			}
		})
	}
}

func TestNoCard(t *testing.T) {
	n := newNetwork(t)
	n.Do(func() {
		if d, err := tcredirect.Attach("eth7", slog.New(slog.DiscardHandler)); err == nil {
			d.Close()
			t.Error("attached to a card that there is not")
		}
	})
}
