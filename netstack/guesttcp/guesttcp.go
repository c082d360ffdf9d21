// Package guesttcp is a TCP that connects to servers on a guest's loopback through the
// guest's network card. It exchanges Ethernet frames with the guest's kernel, so no
// process of the guest takes part.
//
//	l := guesttcp.New(guesttcp.Config{Card: card})
//	c, err := l.Dial(ctx, netip.MustParseAddrPort("127.0.0.1:80"))
//
// In the guest, two small programs redirect the frames: those from the card with an
// all-zero destination address to lo, and the answers from lo to the card (see the
// package with the TCX programs under guest/agent). A server in the guest sees a client at
// 127.0.0.1 or ::1, with a port from [FirstPort] to [LastPort].
//
// The frames go through memory that both sides share, in order. So this TCP needs neither
// congestion control nor selective acknowledgements: the guest's window bounds the
// bytes in flight. But the guest drops frames when its backlog is full, so lost segments
// are sent again.
package guesttcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lsub/lsub/connbuf"
	"github.com/lsub/lsub/virtionet"
)

// The ports of the host's ends. The guest keeps them free of its own programs.
const (
	FirstPort = 61000
	LastPort  = 65535
)

// Config is the configuration of a [Link]. A limit of zero means its default.
type Config struct {
	Card virtionet.Card
	// Buffer is the most bytes that a connection may hold in either direction. Default 1 MiB.
	Buffer int
	// MaxBuffered is the most bytes that all connections together may hold in either
	// direction. As it runs out, new connections get less, down to 16 KiB each.
	// Default 256 MiB.
	MaxBuffered int64
	Logger      *slog.Logger // nil discards
}

const minBuffer = 16 << 10

// Link connects to one guest's loopback. It is safe for concurrent use. The card calls
// Receive, Flush and Room.
type Link struct {
	cfg Config
	log *slog.Logger

	mu       sync.Mutex // innermost lock; guards what follows
	closed   bool
	conns    map[flow]*Conn
	nextPort uint16
	iss      uint32  // initial sequence number of the next connection
	promised int64   // sum of the connections' buffers
	blocked  []*Conn // wait for room in the guest
	turn     uint    // index of the first one to get room
	late     []*Conn // owe a delayed acknowledgement
	lateSet  bool    // a timer for them runs

	ticking atomic.Bool // the retransmission timer runs

	// Of the goroutine that calls Receive and Flush.
	in   segment
	due  []*Conn // connections with something to send after these frames
	back [headMax]byte
}

// New returns a link with no connections.
func New(cfg Config) *Link {
	if cfg.Buffer <= 0 {
		cfg.Buffer = 1 << 20
	}
	cfg.Buffer = min(max(cfg.Buffer, minBuffer), connbuf.MaxBuffer)
	if cfg.MaxBuffered <= 0 {
		cfg.MaxBuffered = 256 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Link{cfg: cfg, log: cfg.Logger, conns: map[flow]*Conn{}, nextPort: FirstPort, iss: uint32(time.Now().UnixNano())}
}

// errNoPort says that connections to that port of the guest use all ports of the host's end.
var errNoPort = fmt.Errorf("no port is left for one more connection: %w", syscall.EADDRNOTAVAIL)

// Dial connects to a port of the guest's loopback, 127.0.0.1 or ::1. ctx bounds the dialing,
// not the connection. If nothing listens on the port, the error wraps [syscall.ECONNREFUSED].
// If the guest redirects the frames elsewhere, as the rules of a container engine may,
// nothing answers. The caller closes the connection.
func (l *Link) Dial(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	c, err := l.Start(to)
	if err == nil {
		err = c.Opened(ctx)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Start begins to connect, as Dial does, but does not wait for the guest's answer;
// [Conn.Opened] does. Bytes written before the answer are sent after it. The caller closes
// the connection.
func (l *Link) Start(to netip.AddrPort) (*Conn, error) {
	c, err := l.newConn(to)
	if err != nil {
		return nil, dialError(to, err)
	}
	c.start()
	return c, nil
}

// Opened waits until the guest has accepted the connection. Otherwise it returns an
// error, as Dial does, and the connection is closed.
func (c *Conn) Opened(ctx context.Context) error {
	var err error
	select {
	case <-c.opened:
		err = c.dialed()
	case <-ctx.Done():
		err = ctx.Err()
		c.abort(err)
	}
	return dialError(netip.AddrPortFrom(c.flow.addr(), c.flow.guest), err)
}

func dialError(to netip.AddrPort, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
}

func (l *Link) newConn(to netip.AddrPort) (*Conn, error) {
	f := flow{guest: to.Port(), v6: to.Addr().Is6()}
	if to.Addr() != f.addr() {
		return nil, fmt.Errorf("%v is no address of the guest's loopback", to.Addr())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, net.ErrClosed
	}
	for tries := 0; ; tries++ {
		if tries > LastPort-FirstPort {
			return nil, errNoPort
		}
		f.host = l.nextPort
		if l.nextPort++; l.nextPort == 0 {
			l.nextPort = FirstPort
		}
		// A connection from a port to itself would look to the guest like its own answer.
		if l.conns[f] == nil && f.host != f.guest {
			break
		}
	}
	c := newConn(l, f, l.iss, l.promise())
	l.conns[f] = c
	return c, nil
}

// promise reserves a new connection's buffers. The caller holds l.mu.
func (l *Link) promise() int {
	n := min(max((l.cfg.MaxBuffered-l.promised)/64, minBuffer), int64(l.cfg.Buffer))
	l.promised += n
	return int(n)
}

// forget removes a connection from the table. The next connection between the same
// ports starts at a later sequence number: the guest may still have the old one in
// TIME-WAIT.
func (l *Link) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[c.flow] != c {
		return
	}
	delete(l.conns, c.flow)
	l.promised -= int64(c.room)
	if after(c.nxt, l.iss) {
		l.iss = c.nxt
	}
	l.iss += 1 << 16
}

// Close ends all connections. The link sends nothing more.
func (l *Link) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for _, c := range l.all() {
		c.mu.Lock()
		c.die(net.ErrClosed)
		c.mu.Unlock()
	}
	return nil
}

func (l *Link) all() []*Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]*Conn, 0, len(l.conns))
	for _, c := range l.conns {
		list = append(list, c)
	}
	return list
}

// Receive takes a frame with its virtio-net header if it comes from the guest's loopback.
// Otherwise it returns false.
func (l *Link) Receive(parts [][]byte) bool {
	ours, err := l.in.decode(parts)
	if !ours {
		return false
	}
	if err != nil {
		l.log.Debug("guesttcp: a frame is dropped", "err", err)
		return true
	}
	l.mu.Lock()
	c := l.conns[l.in.flow]
	l.mu.Unlock()
	if c == nil {
		l.reject()
		return true
	}
	if c.input(&l.in) {
		l.due = append(l.due, c)
	}
	return true
}

// reject answers a segment that belongs to no connection.
func (l *Link) reject() {
	s := &l.in
	if s.flags&flagRST != 0 {
		return
	}
	h := head{buf: &l.back}
	h.init(s.flow)
	h.set(flagRST, s.ack, 0, 0, 0)
	l.cfg.Card.Send(h.bytes()) // no need to retry: the guest asks again
}

// Flush acknowledges the segments received since the last Flush.
func (l *Link) Flush() {
	for i, c := range l.due {
		c.flush()
		l.due[i] = nil
	}
	l.due = l.due[:0]
}

// lateAfter is the delay of a delayed acknowledgement.
const lateAfter = 4 * time.Millisecond

// acknowledgeLate schedules a delayed acknowledgement of c.
func (l *Link) acknowledgeLate(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late = append(l.late, c)
	if !l.lateSet {
		l.lateSet = true
		time.AfterFunc(lateAfter, l.sendLate)
	}
}

func (l *Link) sendLate() {
	l.mu.Lock()
	late := l.late
	l.late, l.lateSet = nil, false
	l.mu.Unlock()
	for _, c := range late {
		c.sendLate()
	}
}

// block notes that c waits for room.
func (l *Link) block(c *Conn) {
	l.mu.Lock()
	l.blocked = append(l.blocked, c)
	l.mu.Unlock()
}

// Room resumes the connections that wait for room in the guest.
func (l *Link) Room() {
	l.mu.Lock()
	blocked := l.blocked
	l.blocked = nil
	l.turn++
	first := int(l.turn % uint(max(len(blocked), 1))) // so that not always the same one gets the room
	l.mu.Unlock()
	for i := range blocked {
		blocked[(first+i)%len(blocked)].unblock()
	}
}

// tickEvery is the interval of the retransmission timer.
const tickEvery = 100 * time.Millisecond

// tick starts the retransmission timer unless it runs.
func (l *Link) tick() {
	if !l.ticking.Load() && l.ticking.CompareAndSwap(false, true) {
		time.AfterFunc(tickEvery, l.expire)
	}
}

func (l *Link) expire() {
	l.ticking.Store(false) // later sends start the timer themselves
	now := time.Now()
	more := false
	for _, c := range l.all() {
		more = c.expire(now) || more
	}
	if more {
		l.tick()
	}
}

var errTimeout = errors.New("the guest does not answer")
