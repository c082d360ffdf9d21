package forward

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// flowIdle is how long a flow without packets lasts.
	flowIdle = 90 * time.Second
	// flowQueue is how many packets of a client wait for the guest. More packets are lost, as
	// UDP allows.
	flowQueue = 256
	// maxPacket is the maximum size of a UDP packet in bytes.
	maxPacket = 1<<16 - 1
	// udpBuffer is the kernel's receive buffer for bursts, in bytes.
	udpBuffer = 1 << 20
)

// udpPort is an open UDP port. Each client has its own flow, with a stream to the guest. The
// answers are sent from this port.
type udpPort struct {
	*net.UDPConn
	p      *port
	target *atomic.Pointer[Target]

	mu    sync.Mutex
	flows map[netip.AddrPort]*flow
}

// flow is the traffic between one client and a port.
type flow struct {
	u      *udpPort
	client netip.AddrPort
	queue  chan []byte
	last   atomic.Int64 // Unix time of the last packet, in ns
	end    context.CancelFunc
}

// listenUDP opens a port for packets.
func (p *port) listenUDP(at netip.AddrPort) (opened, error) {
	family, target := "udp4", &p.target4
	if at.Addr().Is6() {
		family, target = "udp6", &p.target6
	}
	c, err := net.ListenUDP(family, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return opened{}, err
	}
	c.SetReadBuffer(udpBuffer)
	u := &udpPort{UDPConn: c, p: p, target: target, flows: map[netip.AddrPort]*flow{}}
	ctx, cancel := context.WithCancel(p.f.ctx)
	p.f.wg.Go(func() {
		defer cancel() // ends the flows
		u.receive(ctx)
	})
	return opened{c.LocalAddr().String(), c}, nil
}

// receive passes packets to the flows of their clients, until the port is closed.
func (u *udpPort) receive(ctx context.Context) {
	buf := make([]byte, 2+maxPacket)
	for {
		n, client, err := u.ReadFromUDPAddrPort(buf[2:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // a client's ICMP error, which does not affect other clients
		}
		f := u.flow(ctx, client)
		if f == nil {
			u.p.stats.failed.Add(1)
			continue
		}
		binary.BigEndian.PutUint16(buf, uint16(n))
		select {
		case f.queue <- append([]byte(nil), buf[:2+n]...):
		default: // the guest is slow: the packet is lost
		}
	}
}

// flow returns the flow of a client. It creates one if necessary, and returns nil if there
// are too many.
func (u *udpPort) flow(ctx context.Context, client netip.AddrPort) *flow {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.flows[client]; f != nil {
		return f
	}
	fw := u.p.f
	if fw.allow(UDP, client, u.reached(client)) != nil {
		return nil
	}
	if !fw.flows.TryAcquire("port", u.LocalAddr()) {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &flow{u: u, client: client, queue: make(chan []byte, flowQueue), end: cancel}
	f.touch()
	u.flows[client] = f
	u.p.stats.connections.Add(1)
	u.p.stats.active.Add(1)
	fw.wg.Go(func() {
		defer fw.flows.Release()
		defer u.p.stats.active.Add(-1)
		f.run(ctx)
		cancel()
		u.mu.Lock()
		delete(u.flows, client)
		u.mu.Unlock()
	})
	return f
}

// reached is the address that a client on this machine sends to: of a port that is open on
// all addresses, the one that the client has itself.
func (u *udpPort) reached(client netip.AddrPort) netip.AddrPort {
	at := u.LocalAddr().(*net.UDPAddr).AddrPort()
	if at.Addr().IsUnspecified() {
		return netip.AddrPortFrom(client.Addr(), at.Port())
	}
	return at
}

func (f *flow) touch() { f.last.Store(time.Now().UnixNano()) }

// run serves the flow until it is idle, the guest ends it, or ctx is done.
func (f *flow) run(ctx context.Context) {
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	stream, err := f.u.p.f.cfg.Guest.Connect(dialing, *f.u.target.Load())
	cancel()
	if err != nil {
		f.u.p.stats.failed.Add(1)
		return
	}
	stop := context.AfterFunc(ctx, func() { stream.Conn.Close() })
	defer stop()
	var answers sync.WaitGroup
	answers.Go(func() {
		defer f.end()
		head, err := stream.Opened()
		if err != nil {
			f.u.p.stats.failed.Add(1)
			return
		}
		f.answer(io.MultiReader(bytes.NewReader(head), stream.Conn))
	})
	f.send(ctx, stream.Conn)
	stream.Conn.Close()
	answers.Wait()
}

// send passes the client's packets on, several at once if they are queued, until the flow is
// idle.
func (f *flow) send(ctx context.Context, stream net.Conn) {
	idle := time.NewTicker(flowIdle / 3)
	defer idle.Stop()
	var batch []byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-idle.C:
			if time.Since(time.Unix(0, f.last.Load())) > flowIdle {
				return
			}
			continue
		case p := <-f.queue:
			batch = append(batch[:0], p...)
		}
		for more := true; more && len(batch) < bufferSize/2; {
			select {
			case p := <-f.queue:
				batch = append(batch, p...)
			default:
				more = false
			}
		}
		f.touch()
		f.u.p.stats.toGuest.Add(int64(len(batch)))
		if _, err := stream.Write(batch); err != nil {
			return
		}
		if cap(batch) > 16<<10 && len(f.queue) == 0 {
			batch = nil
		}
	}
}

// answer passes the guest's packets to the client.
func (f *flow) answer(stream io.Reader) {
	r := bufio.NewReaderSize(stream, 4<<10)
	var buf []byte
	var size [2]byte
	for {
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n > len(buf) {
			buf = make([]byte, max(n, 2<<10))
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return
		}
		f.touch()
		f.u.p.stats.toHost.Add(int64(n))
		f.u.WriteToUDPAddrPort(buf[:n], f.client) // a failed send loses the packet
	}
}
