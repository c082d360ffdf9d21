package gvisortcp

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lsub/lsub/guest/agent/loopback/loopbacktest"
	"github.com/lsub/lsub/netstack/forward"
	"github.com/lsub/lsub/netstack/guesttcp"
)

type opening interface {
	net.Conn
	Opened(context.Context) error
}

type guest struct {
	forward.Guest
	start func(netip.AddrPort) (opening, error)
	to    netip.AddrPort
}

func (g guest) Connect(context.Context, forward.Target) (net.Conn, func() ([]byte, error), error) {
	c, err := g.start(g.to)
	if err != nil {
		return nil, nil, err
	}
	return c, func() ([]byte, error) { return nil, c.Opened(context.Background()) }, nil
}

func quantile(s []float64, q float64) float64 {
	s = slices.Sorted(slices.Values(s))
	return s[int(q*float64(len(s)-1))]
}

// TestCompare measures both TCPs against this machine's kernel, behind a forwarded port,
// in turns. COMPARE is the number of rounds.
func TestCompare(t *testing.T) {
	rounds := 0
	fmt.Sscan(os.Getenv("COMPARE"), &rounds)
	if rounds == 0 {
		t.Skip("COMPARE is not set")
	}
	ns := loopbacktest.New(t)
	card := cardFunc(ns.Send)
	ours := guesttcp.New(guesttcp.Config{Card: card})
	cfg := Config{Card: card, FirstPort: 63001, LastPort: 65535, NoRACK: os.Getenv("T_NORACK") != "", Delay: os.Getenv("T_DELAY") != "", Cubic: os.Getenv("T_CUBIC") != ""}
	fmt.Sscan(os.Getenv("T_BUFFER"), &cfg.Buffer)
	fmt.Sscan(os.Getenv("T_MSS"), &cfg.MSS)
	gv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ns.Receive(func(parts [][]byte) { _ = gv.Receive(parts) || ours.Receive(parts) }, func() { gv.Flush(); ours.Flush() })
	var li net.Listener
	ns.Do(func() { li, _ = net.Listen("tcp", "127.0.0.1:0") })
	go func() {
		for {
			c, err := li.Accept()
			if err != nil {
				return
			}
			go serveOne(c)
		}
	}()
	to := li.Addr().(*net.TCPAddr).AddrPort()
	type side struct {
		name string
		at   string
		m    map[string][]float64
	}
	var sides []*side
	for i, start := range []func(netip.AddrPort) (opening, error){
		func(a netip.AddrPort) (opening, error) { return ours.Start(a) },
		func(a netip.AddrPort) (opening, error) { return gv.Start(a) },
	} {
		at := fmt.Sprintf("127.0.0.1:%d", 17700+i)
		f := forward.New(forward.Config{Guest: guest{start: start, to: to}, Rules: []forward.Rule{{Network: forward.TCP, Host: []netip.AddrPort{netip.MustParseAddrPort(at)}, Guest: forward.Target{Network: forward.TCP, Address: ":80"}}}})
		f.SetListeners([]forward.Listener{{Network: forward.TCP, Addr: netip.MustParseAddrPort("127.0.0.1:80")}})
		go f.Run(t.Context())
		sides = append(sides, &side{[]string{"ours", "gVisor"}[i], at, map[string][]float64{}})
	}
	time.Sleep(300 * time.Millisecond)
	dial := func(s *side, what byte) net.Conn {
		c, err := net.Dial("tcp", s.at)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		c.Write([]byte{what})
		return c
	}
	ping := func(c net.Conn) {
		c.Write([]byte{1})
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	cpu := func() time.Duration {
		var r syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &r)
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	const size = 256 << 20
	buf := make([]byte, 256<<10)
	one := func(s *side) {
		runtime.GC()
		c := dial(s, 'u')
		start, used := time.Now(), cpu()
		for n := 0; n < size; n += len(buf) {
			c.Write(buf)
		}
		c.(*net.TCPConn).CloseWrite()
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		s.m["1 up MB/s"] = append(s.m["1 up MB/s"], size/1e6/time.Since(start).Seconds())
		s.m["2 up cpu ms/MB"] = append(s.m["2 up cpu ms/MB"], float64(cpu()-used)/1e6/(size/1e6))
		c.Close()
		c = dial(s, 'd')
		start, used = time.Now(), cpu()
		binary.Write(c, binary.BigEndian, uint64(size))
		for n := 0; n < size; {
			k, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
		s.m["3 down MB/s"] = append(s.m["3 down MB/s"], size/1e6/time.Since(start).Seconds())
		s.m["4 down cpu ms/MB"] = append(s.m["4 down cpu ms/MB"], float64(cpu()-used)/1e6/(size/1e6))
		c.Close()
		c = dial(s, 'e')
		var trips, conns []float64
		for range 2000 {
			start := time.Now()
			ping(c)
			trips = append(trips, float64(time.Since(start))/1e3)
		}
		c.Close()
		s.m["5 trip µs"] = append(s.m["5 trip µs"], quantile(trips, .5))
		for range 200 {
			start := time.Now()
			c := dial(s, 'e')
			ping(c)
			c.Close()
			conns = append(conns, float64(time.Since(start))/1e3)
		}
		s.m["6 connect µs"] = append(s.m["6 connect µs"], quantile(conns, .5))
		start = time.Now()
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 25 {
					c := dial(s, 'e')
					ping(c)
					c.Close()
				}
			})
		}
		wg.Wait()
		s.m["7 16 at once conn/s"] = append(s.m["7 16 at once conn/s"], 400/time.Since(start).Seconds())
	}
	memory := func(s *side) {
		var a, b runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&a)
		var all []net.Conn
		for range 1000 {
			c := dial(s, 'e')
			ping(c)
			all = append(all, c)
		}
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&b)
		s.m["8 memory of 1000 KiB"] = append(s.m["8 memory of 1000 KiB"], float64(b.HeapAlloc+b.StackInuse)/1024-float64(a.HeapAlloc+a.StackInuse)/1024)
		for _, c := range all {
			c.Close()
		}
		time.Sleep(500 * time.Millisecond)
	}
	for i := range rounds {
		for k := range sides {
			one(sides[(i+k)%2])
		}
	}
	for i := range 2 {
		for k := range sides {
			memory(sides[(i+k)%2])
		}
	}
	for _, s := range sides {
		var keys []string
		for k := range s.m {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			fmt.Printf("%-22s %-7s median %9.2f  min %9.2f  max %9.2f\n", k, s.name, quantile(s.m[k], .5), quantile(s.m[k], 0), quantile(s.m[k], 1))
		}
	}
}

func serveOne(c net.Conn) {
	defer c.Close()
	what := make([]byte, 1)
	io.ReadFull(c, what)
	switch buf := make([]byte, 256<<10); what[0] {
	case 'u':
		for {
			if _, err := c.Read(buf); err != nil {
				break
			}
		}
		c.Write([]byte{1})
	case 'd':
		var n uint64
		binary.Read(c, binary.BigEndian, &n)
		for n > 0 {
			k, err := c.Write(buf[:min(n, uint64(len(buf)))])
			if err != nil {
				return
			}
			n -= uint64(k)
		}
		c.Read(buf)
	case 'e':
		buf = make([]byte, 16)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			c.Write(buf[:n])
		}
	}
}
