package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// echoPackets answers each packet with itself.
func echoPackets(c *net.UnixConn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		p := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, p); err != nil {
			return
		}
		if _, err := c.Write(append(size[:], p...)); err != nil {
			return
		}
	}
}

func TestUDP(t *testing.T) {
	g := newFakeGuest(t)
	n := freePort(t)
	v4, v6 := fmt.Sprintf("127.0.0.1:%d", n), fmt.Sprintf("[::1]:%d", n)
	g.on(UDP, v4, echoPackets)
	f := run(t, Config{Guest: g, Auto: auto})
	f.SetListeners([]Listener{listener(UDP, "0.0.0.0:"+fmt.Sprint(n))})
	awaitStates(t, f, StateOpen)
	buf := make([]byte, 1<<16)
	for _, at := range []string{v4, v6} {
		for i := range 3 { // each one is a separate client
			c := dial(t, UDP, at) // connected: it receives answers only from this port
			for _, size := range []int{1, 0, 1472, 9000, 65507} {
				p := bytes.Repeat([]byte{byte(i)}, size)
				if _, err := c.Write(p); err != nil {
					t.Fatal(err)
				}
				m, err := c.Read(buf)
				if err != nil || !bytes.Equal(buf[:m], p) {
					t.Fatalf("%s: %d bytes of %d, %v", at, m, size, err)
				}
			}
		}
	}
	p, _ := f.Ports()
	if p[0].Connections != 6 || p[0].Active != 6 || p[0].ToHost == 0 {
		t.Errorf("%+v", p[0])
	}
	f.SetListeners(nil)
	awaitStates(t, f)
}

// TestUDPSlowGuest has a flow whose guest end takes nothing. Its packets are lost, those of
// other clients are not.
func TestUDPSlowGuest(t *testing.T) {
	g := newFakeGuest(t)
	n, m := freePort(t), freePort(t)
	slow, quick := fmt.Sprintf("127.0.0.1:%d", n), fmt.Sprintf("127.0.0.1:%d", m)
	g.on(UDP, slow, func(c *net.UnixConn) { time.Sleep(time.Minute) })
	g.on(UDP, quick, echoPackets)
	f := run(t, Config{Guest: g, Auto: auto})
	f.SetListeners([]Listener{listener(UDP, slow), listener(UDP, quick)})
	awaitStates(t, f, StateOpen, StateOpen)
	c := dial(t, UDP, slow)
	for range 2000 {
		c.Write(make([]byte, 8<<10))
	}
	d := dial(t, UDP, quick)
	io.WriteString(d, "x")
	if _, err := d.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// FuzzAnswer reads arbitrary bytes as a guest's packets.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0, 1, 'x', 0, 0, 0, 2, 'a'})
	f.Add([]byte{0xff, 0xff, 1, 2, 3})
	to, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &port{f: New(Config{})}
		u := &udpPort{UDPConn: to, p: p}
		fl := &flow{u: u, client: to.LocalAddr().(*net.UDPAddr).AddrPort()}
		fl.answer(bytes.NewReader(b))
		if n := p.stats.toHost.Load(); n > int64(len(b)) {
			t.Errorf("%d bytes of %d", n, len(b))
		}
	})
}
