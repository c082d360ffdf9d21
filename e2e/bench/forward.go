package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// netPort is the first of the ports that netserver has in the guest.
const netPort = 7100

// The services of netserver, as offsets from netPort.
const (
	sinkPort = iota
	sourcePort
	echoPort
	controlPort
	netPorts
)

// route is one way from the host to the guest's server.
type route struct {
	name string
	port int // of the host, of the sink

	toGuest, toHost, rate, trip, connect samples
	tripAll, connectAll                  samples
}

// forward measures every way to the same server in the same VM, in turns.
func (b *bench) forward() error {
	n, err := b.newNetPeers()
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.start(); err != nil {
		return err
	}
	for i := range b.times(5, 2) {
		for _, r := range n.routes {
			if err := n.measure(r); err != nil {
				return fmt.Errorf("round %d, %s: %w", i+1, r.name, err)
			}
		}
	}
	n.report()
	return errors.Join(n.egress(), n.opening(), n.memory(), n.ownersOnly())
}

// dial connects to a service of a route.
func (r *route) dial(service int) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", r.port+service), 30*time.Second)
	if err == nil {
		c.SetDeadline(time.Now().Add(slow))
	}
	return c, err
}

func (n *netPeers) measure(r *route) error {
	size := int64(128 << 20)
	trips, conns := 300, 100
	if n.b.quick {
		size, trips, conns = 16<<20, 50, 20
	}
	err := errors.Join(r.toGuest.rate(size)(r.upload(size)), r.toHost.rate(size)(r.download(size)))
	if err != nil {
		return err
	}
	c, err := r.dial(echoPort)
	if err != nil {
		return err
	}
	defer c.Close()
	var trip samples
	for range trips {
		start := time.Now()
		if err := pingPong(c); err != nil {
			return err
		}
		trip = append(trip, float64(time.Since(start))/1e3)
	}
	r.trip, r.tripAll = append(r.trip, trip.quantile(0.5)), append(r.tripAll, trip...)
	var connect samples
	for range conns {
		start := time.Now()
		if err := r.visit(); err != nil {
			return err
		}
		connect = append(connect, float64(time.Since(start))/1e3)
	}
	r.connect, r.connectAll = append(r.connect, connect.quantile(0.5)), append(r.connectAll, connect...)
	took, err := r.visits(16, conns*2)
	r.rate = append(r.rate, float64(conns*2)/took.Seconds())
	return err
}

func (r *route) upload(size int64) (time.Duration, error) {
	c, err := r.dial(sinkPort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	start := time.Now()
	if _, err := io.CopyBuffer(onlyWriter{c}, io.LimitReader(zeros{}, size), make([]byte, 256<<10)); err != nil {
		return 0, err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return time.Since(start), err
}

// onlyWriter hides what else a connection can do, for a buffer of our size.
type onlyWriter struct{ io.Writer }

func (r *route) download(size int64) (time.Duration, error) {
	c, err := r.dial(sourcePort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	start := time.Now()
	if err := binary.Write(c, binary.BigEndian, uint64(size)); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	for left := size; left > 0; {
		n, err := c.Read(buf)
		if err != nil {
			return 0, err
		}
		left -= int64(n)
	}
	return time.Since(start), nil
}

func pingPong(c net.Conn) error {
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// visit connects, sends a byte, waits for the answer and closes.
func (r *route) visit() error {
	c, err := r.dial(echoPort)
	if err != nil {
		return err
	}
	defer c.Close()
	return pingPong(c)
}

// visits makes a number of visits, some at once.
func (r *route) visits(atOnce, total int) (time.Duration, error) {
	start := time.Now()
	errs := make([]error, atOnce)
	var wg sync.WaitGroup
	for i := range atOnce {
		wg.Go(func() {
			for range total / atOnce {
				if errs[i] = r.visit(); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start), errors.Join(errs...)
}

// report reports the routes: ours beside each other one.
func (n *netPeers) report() {
	ours := n.routes[0]
	for _, peer := range n.routes[1:] {
		for _, f := range []struct {
			name, unit string
			of         func(*route) samples
		}{
			{"forwarded port: host to guest", "MB/s", func(r *route) samples { return r.toGuest }},
			{"forwarded port: guest to host", "MB/s", func(r *route) samples { return r.toHost }},
			{"forwarded port: round trip of one byte", "µs", func(r *route) samples { return r.trip }},
			{"… p99", "µs", func(r *route) samples { return samples{r.tripAll.quantile(0.99)} }},
			{"forwarded port: connect, one byte each way, close", "µs", func(r *route) samples { return r.connect }},
			{"… p99", "µs", func(r *route) samples { return samples{r.connectAll.quantile(0.99)} }},
			{"forwarded port: such connections, 16 at once", "conn/s", func(r *route) samples { return r.rate }},
		} {
			n.b.report.figure(f.name, f.unit, f.of(ours)).beside(peer.name, f.of(peer))
		}
	}
}

// opening measures from the command to listen until the host's port answers.
// It has the command's way to the guest in it, so it is too long rather than too short.
func (n *netPeers) opening() error {
	control, err := n.routes[0].dial(controlPort)
	if err != nil {
		return err
	}
	defer control.Close()
	var took samples
	for i := range n.b.times(40, 10) {
		port := uint16(netPort + 400 + i)
		start := time.Now()
		if err := binary.Write(control, binary.BigEndian, port); err != nil {
			return err
		}
		for {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				c.SetDeadline(time.Now().Add(30 * time.Second))
				err = pingPong(c)
				c.Close()
			}
			if err == nil {
				break
			}
			if time.Since(start) > 30*time.Second {
				return fmt.Errorf("port %d of the host does not open: %w", port, err)
			}
			time.Sleep(200 * time.Microsecond)
		}
		took.add(time.Since(start))
		if err := n.b.pause(20 * time.Millisecond); err != nil {
			return err
		}
	}
	f := n.b.report.figure("forwarded port: from the command to listen to the host's answer", "ms", took)
	f.Aim, f.AimP95, f.Lima = 50, 100, 1830
	n.b.report.figure("… p99", "ms", samples{took.quantile(0.99)})
	return nil
}

// memory measures what 1,000 connections that are open and silent take, and cost.
func (n *netPeers) memory() error {
	p, err := n.h.processes()
	if err != nil {
		return err
	}
	free, err := n.h.output("exec", "debian", "--", "sh", "-c", "grep MemAvailable /proc/meminfo | tr -dc 0-9")
	if err != nil {
		return err
	}
	before := memory(p.supervisor, "VmRSS")
	conns := make([]net.Conn, 0, 1000)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 1000 {
		c, err := n.routes[0].dial(echoPort)
		if err != nil {
			return err
		}
		conns = append(conns, c)
		if err := pingPong(c); err != nil {
			return err
		}
	}
	after := memory(p.supervisor, "VmRSS")
	left, err := n.h.output("exec", "debian", "--", "sh", "-c", "grep MemAvailable /proc/meminfo | tr -dc 0-9")
	if err != nil {
		return err
	}
	a, _ := strconv.ParseFloat(free, 64)
	z, _ := strconv.ParseFloat(left, 64)
	n.b.report.figure("1,000 open connections: memory of the supervisor", "MiB", samples{after - before})
	n.b.report.figure("… of the guest", "MiB", samples{(a - z) / 1024}).Note = "the server's own and its kernel's part is in it"
	window := 30 * time.Second
	if n.b.quick {
		window = 5 * time.Second
	}
	s, q, err := n.b.busy(p, window)
	if err == nil {
		n.b.report.figure("… supervisor and QEMU while they are silent", "% of a core", samples{s + q}).Note = "with the watcher of listeners and two more network cards in it"
	}
	return err
}

// egress measures from the guest to a server of the host, over each network card.
func (n *netPeers) egress() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{c}, make([]byte, 256<<10))
				c.Write([]byte{1})
				c.Close()
			}()
		}
	}()
	size := int64(128 << 20)
	if n.b.quick {
		size = 16 << 20
	}
	all := make([]samples, len(n.hosts))
	for range n.b.times(5, 2) {
		for i, host := range n.hosts {
			out, err := n.h.output("exec", "-u", "root", "debian", "--", "/root/netserver", "send",
				fmt.Sprintf("%s:%d", host.addr, l.Addr().(*net.TCPAddr).Port), fmt.Sprint(size))
			if err != nil {
				return fmt.Errorf("egress by %s: %w", host.name, err)
			}
			s, err := strconv.ParseFloat(out, 64)
			if err != nil {
				return err
			}
			all[i] = append(all[i], float64(size)/1e6/s)
		}
	}
	for i, host := range n.hosts[1:] {
		n.b.report.figure("egress: guest to a server of the host", "MB/s", all[0]).beside(host.name, all[i+1])
	}
	return nil
}

type onlyReader struct{ io.Reader }

// start brings the VM up with its server, and waits until all routes stand.
func (n *netPeers) start() error {
	if err := n.h.debian(); err != nil {
		return err
	}
	if _, err := n.h.lsub("shutdown"); err != nil {
		return err
	}
	program := filepath.Join(n.b.dir, "netserver")
	build := exec.CommandContext(n.b.ctx, "go", "build", "-trimpath", "-o", program, "./e2e/bench/netserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := n.b.timed(build); err != nil {
		return err
	}
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	script := "cat >/root/netserver; chmod 755 /root/netserver"
	for _, c := range n.cards {
		script += fmt.Sprintf("; dev=$(basename $(dirname $(grep -l %s /sys/class/net/*/address))); ip addr add %s dev $dev; ip link set $dev mtu %d up", c.mac, c.addr, c.mtu)
	}
	if _, err := n.h.pipe(f, "exec", "-u", "root", "debian", "--", "sh", "-ec", script); err != nil {
		return err
	}
	if err := n.serve(); err != nil {
		return err
	}
	if err := n.ssh(); err != nil {
		return err
	}
	for _, r := range n.routes {
		if err := n.await(r); err != nil {
			return fmt.Errorf("%s does not answer: %w", r.name, err)
		}
	}
	return nil
}

// serve starts the server in the guest, which ends with its stdin.
func (n *netPeers) serve() error {
	ctx, cancel := context.WithCancel(n.b.ctx)
	cmd := n.h.command(ctx, "exec", "-u", "root", "debian", "--", "/root/netserver", "serve", fmt.Sprint(netPort))
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	n.closers = append(n.closers, func() {
		cancel()
		if in != nil {
			in.Close()
		}
		cmd.Wait()
	})
	return err
}

// ssh adds the route through ssh -L.
func (n *netPeers) ssh() error {
	g, err := n.h.ssh()
	if err != nil {
		return err
	}
	n.closers = append(n.closers, g.close)
	r := &route{name: "ssh -L", port: netPort + 300}
	args := []string{"-O", "forward"}
	for i := range netPorts {
		args = append(args, "-L", fmt.Sprintf("127.0.0.1:%d:127.0.0.1:%d", r.port+i, netPort+i))
	}
	n.routes = append(n.routes, r)
	return g.run(append(args, "guest")...)
}

// words joins what one option of QEMU is made of.
func words(parts ...string) string { return strings.Join(parts, ",") }
