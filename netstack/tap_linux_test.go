package netstack

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/virtionet"
)

// kernelGuest uses this machine's kernel as the guest: a tap device in a network namespace of
// the test, with the offloads of a VM's card.
type kernelGuest struct {
	n    *Network
	tap  *os.File
	do   chan func() // runs functions on a thread in the namespace
	port *Port       // nil with a stream
}

// startKernel connects a kernel to a new network, by a stream or by a card.
func startKernel(b *testing.B, attach bool) *kernelGuest {
	b.Helper()
	if os.Getuid() != 0 {
		b.Skip("it takes root to make a tap device in a network namespace")
	}
	n, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	g := &kernelGuest{n: n, do: make(chan func())}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		failed <- g.makeTap(attach)
		for f := range g.do {
			f()
		}
	}()
	if err := <-failed; err != nil {
		b.Skipf("no tap device in a network namespace: %v", err)
	}
	done := make(chan struct{})
	stop := func() {}
	if attach {
		g.port = n.Attach(g)
		go func() { defer close(done); g.receive() }()
	} else {
		stop = g.serve(done)
	}
	b.Cleanup(func() {
		g.tap.Close()
		stop()
		<-done
		close(g.do)
	})
	return g
}

func (g *kernelGuest) makeTap(attach bool) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ifr, err := unix.NewIfreq("eth0")
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if attach {
		flags |= unix.IFF_VNET_HDR
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return err
	}
	if attach {
		size := int32(virtionet.HeaderLen)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETVNETHDRSZ, uintptr(unsafe.Pointer(&size))); errno != 0 { // the call reads an int
			return errno
		}
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
			return err
		}
	}
	g.tap = os.NewFile(uintptr(fd), "tap")
	script := fmt.Sprintf("ip link set lo up; ip link set eth0 address %s mtu %d up; ip addr add %s dev eth0; ip route add default via %s",
		g.n.GuestMAC(), g.n.MTU(), g.n.Guest(), g.n.Gateway())
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %s", err, out)
	}
	return nil
}

// receive passes the kernel's frames to the port.
func (g *kernelGuest) receive() {
	raw, err := g.tap.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, virtionet.HeaderLen+maxCardFrame)
	raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.Read(int(fd), buf)
			switch {
			case err == unix.EAGAIN:
				g.port.Flush()
				return false
			case err != nil:
				return true
			}
			g.port.Receive([][]byte{buf[:n]})
		}
	})
}

// Send is that of [Card]. A tap device has room until its kernel refuses a frame.
func (g *kernelGuest) Send(parts ...[]byte) bool {
	sent := true
	raw, err := g.tap.SyscallConn()
	if err != nil {
		return true
	}
	raw.Control(func(fd uintptr) {
		_, err := unix.Writev(int(fd), parts)
		sent = err != unix.EAGAIN
	})
	return sent
}

// serve connects the tap device to the network by a stream, as QEMU does.
func (g *kernelGuest) serve(done chan struct{}) (stop func()) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	end := func(fd int) net.Conn {
		f := os.NewFile(uintptr(fd), "")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			panic(err)
		}
		return c
	}
	host, card := end(fds[0]), end(fds[1])
	go g.n.Serve(context.Background(), host, virtionet.Stream)
	go func() {
		buf := make([]byte, 4+maxCardFrame)
		for {
			n, err := g.tap.Read(buf[4:])
			if err != nil {
				return
			}
			binary.BigEndian.PutUint32(buf, uint32(n))
			card.Write(buf[:4+n])
		}
	}()
	go func() {
		defer close(done)
		buf := make([]byte, maxCardFrame)
		for {
			if _, err := io.ReadFull(card, buf[:4]); err != nil {
				return
			}
			frame := buf[:binary.BigEndian.Uint32(buf)]
			if _, err := io.ReadFull(card, frame); err != nil {
				return
			}
			g.tap.Write(frame)
		}
	}()
	return func() { card.Close() }
}

// dial connects from the namespace to a port of the host's loopback.
func (g *kernelGuest) dial(b *testing.B, port int) net.Conn {
	b.Helper()
	type result struct {
		fd  int
		err error
	}
	got := make(chan result)
	g.do <- func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: g.n.Host().As4()})
		}
		got <- result{fd, err}
	}
	r := <-got
	if r.err != nil {
		b.Fatal(r.err)
	}
	f := os.NewFile(uintptr(r.fd), "")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkEgress sends from a kernel to a server of the host, BenchmarkIngress the
// other way.
func BenchmarkEgress(b *testing.B)  { benchmarkWays(b, false) }
func BenchmarkIngress(b *testing.B) { benchmarkWays(b, true) }

func benchmarkWays(b *testing.B, toGuest bool) {
	for _, attach := range []bool{false, true} {
		b.Run(way(attach), func(b *testing.B) { benchmarkBulk(b, attach, toGuest) })
	}
}

func way(attach bool) string {
	if attach {
		return "card"
	}
	return "stream"
}

func benchmarkBulk(b *testing.B, attach, toGuest bool) {
	const block = 1 << 20
	g := startKernel(b, attach)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	guest := g.dial(b, l.Addr().(*net.TCPAddr).Port)
	defer guest.Close()
	host, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer host.Close()
	from, to := guest, host
	if toGuest {
		from, to = host, guest
	}
	b.SetBytes(block)
	b.ResetTimer()
	before := cpuTime(b)
	go func() {
		p := make([]byte, block)
		for range b.N {
			from.Write(p)
		}
		from.(*net.TCPConn).CloseWrite()
	}()
	p := make([]byte, 256<<10)
	got := 0
	for {
		n, err := to.Read(p)
		got += n
		if err != nil {
			break
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
	if got != b.N*block {
		b.Errorf("%d bytes arrived, want %d", got, b.N*block)
	}
}

// BenchmarkRoundTrip sends a byte to a server on the host and waits for the answer.
func BenchmarkRoundTrip(b *testing.B) {
	for _, attach := range []bool{false, true} {
		b.Run(way(attach), func(b *testing.B) {
			g := startKernel(b, attach)
			c := g.dial(b, echo(b, "tcp", "127.0.0.1:0"))
			defer c.Close()
			p := make([]byte, 1)
			before := cpuTime(b)
			for b.Loop() {
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Read(p); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
		})
	}
}

// cpuTime is the CPU time of the process: network, kernels and both programs.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
