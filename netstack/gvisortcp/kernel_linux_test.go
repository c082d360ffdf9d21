package gvisortcp

import (
	"context"
	"io"
	"net"
	"os"
	"testing"

	"github.com/lsub/lsub/guest/agent/loopback/loopbacktest"
)

type cardFunc func(parts ...[]byte) bool

func (f cardFunc) Send(parts ...[]byte) bool { return f(parts...) }

func BenchmarkKernel(b *testing.B) {
	ns := loopbacktest.New(b)
	l, err := New(Config{Card: cardFunc(ns.Send), FirstPort: 61000, LastPort: 65535, NoRACK: os.Getenv("T_NORACK") != "", Delay: os.Getenv("T_DELAY") != ""})
	if err != nil {
		b.Fatal(err)
	}
	ns.Receive(func(parts [][]byte) { l.Receive(parts) }, l.Flush)
	var li net.Listener
	ns.Do(func() { li, _ = net.Listen("tcp", "127.0.0.1:0") })
	defer li.Close()
	go func() {
		for {
			c, err := li.Accept()
			if err != nil {
				return
			}
			go func() {
				what := make([]byte, 1)
				io.ReadFull(c, what)
				switch buf := make([]byte, 256<<10); what[0] {
				case 'u':
					io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, buf)
				case 'd':
					for {
						if _, err := c.Write(buf); err != nil {
							break
						}
					}
				case 'e':
					io.Copy(c, c)
				}
				c.Close()
			}()
		}
	}()
	to := li.Addr().(*net.TCPAddr).AddrPort()
	dial := func(what string) *Conn {
		c, err := l.Start(to)
		if err == nil {
			err = c.Opened(context.Background())
		}
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Write([]byte(what)); err != nil {
			b.Fatal(err)
		}
		return c
	}
	buf := make([]byte, 2*65476)
	check := func(_ int, err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Run("up", func(b *testing.B) {
		c := dial("u")
		defer c.Close()
		b.SetBytes(int64(len(buf)))
		b.ReportAllocs()
		for b.Loop() {
			check(c.Write(buf))
		}
	})
	b.Run("down", func(b *testing.B) {
		c := dial("d")
		defer c.Close()
		b.SetBytes(int64(len(buf)))
		b.ReportAllocs()
		for b.Loop() {
			check(io.ReadFull(c, buf))
		}
	})
	b.Run("trip", func(b *testing.B) {
		c := dial("e")
		defer c.Close()
		for b.Loop() {
			check(c.Write(buf[:1]))
			check(c.Read(buf[:1]))
		}
	})
	b.Run("connect", func(b *testing.B) {
		for b.Loop() {
			c := dial("e")
			check(c.Write(buf[:1]))
			check(c.Read(buf[:1]))
			c.CloseWrite()
			c.Read(buf[:1])
			c.Close()
		}
	})
}

func TestStress(t *testing.T) {
	ns := loopbacktest.New(t)
	l, err := New(Config{Card: cardFunc(ns.Send), FirstPort: 61000, LastPort: 65535})
	if err != nil {
		t.Fatal(err)
	}
	ns.Receive(func(parts [][]byte) { l.Receive(parts) }, l.Flush)
	var li net.Listener
	ns.Do(func() { li, _ = net.Listen("tcp", "127.0.0.1:0") })
	go func() {
		for {
			c, err := li.Accept()
			if err != nil {
				return
			}
			go func() {
				var b [8]byte
				io.ReadFull(c, b[:])
				c.Write(make([]byte, 16<<20))
				c.Close()
			}()
		}
	}()
	for i := range 60 {
		c, err := l.Start(li.Addr().(*net.TCPAddr).AddrPort())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if _, err := c.Write(make([]byte, 8)); err != nil {
				t.Errorf("%d write %v", i, err)
			}
		}()
		if err := c.Opened(context.Background()); err != nil {
			t.Fatalf("%d opened: %v", i, err)
		}
		n, err := io.Copy(io.Discard, c)
		if err != nil || n != 16<<20 {
			t.Fatalf("%d: %d %v", i, n, err)
		}
		if _, err := c.Write(nil); err != nil {
			t.Fatalf("%d: empty write %v", i, err)
		}
		c.CloseWrite()
		c.Close()
	}
}
