// Package forward opens ports of a VM on the host, and ports of the host in the VM. It copies
// bytes between sockets of the host and streams to the guest. [Guest] opens the streams: to
// the agent in the guest or, on the fast path, by TCP to the guest's kernel (package
// netstack/guesttcp).
//
//	f := forward.New(forward.Config{Guest: guest, Auto: auto})
//	go f.Run(ctx)
//	f.SetListeners(all) // whenever they change
//
// A port of the host is open while something listens in the guest (subject to Config.Auto),
// or if a [Rule] says so. It is a listener of the host's kernel, on exactly the requested
// addresses. Open connections stay when their port closes.
//
// The guest is not trusted: [Limits] bound its use of the host's resources, and its bytes
// wait in bounded buffers.
package forward

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/lsub/lsub/netstack/limiter"
)

// The networks of a [Listener], a [Rule] and a [Target].
const (
	TCP  = "tcp"
	UDP  = "udp"
	Unix = "unix"
)

// Target is an address in the guest to connect to or to listen on.
type Target struct {
	Distro  string // id; "" for the VM's own network
	Network string
	Address string // an address with a port, or a path
	// Shared says that a listener is known there, in the network that the distros share.
	Shared bool
}

// Stream is a connection to the guest, possibly not established yet.
type Stream struct {
	// Conn has a CloseWrite. A Close without an earlier CloseWrite is a reset. Bytes may be
	// written at once.
	Conn net.Conn
	// Opened waits until the guest is connected, or returns why it is not. Call it before the
	// first Read. It returns bytes from the other side that have already arrived.
	Opened func() (head []byte, err error)
}

// Guest is the VM. Package guest implements it. Its methods are safe for concurrent use.
type Guest interface {
	// Connect opens a stream to a target.
	Connect(ctx context.Context, to Target) (Stream, error)
	// Listen accepts connections in the guest until ctx is done.
	Listen(ctx context.Context, at Target, started func(), accepted func(id uint64)) error
	// Accept opens a stream to a connection that Listen has reported.
	Accept(ctx context.Context, id uint64) (Stream, error)
}

// Listener is a listening socket in the guest.
type Listener struct {
	Network string
	Addr    netip.AddrPort
	V6Only  bool
	Distro  string // id
	// Isolated says that the distro has its own network namespace, and so its own ports.
	Isolated bool
	PID      int
	Process  string
}

// netns identifies the listener's network namespace: the id of its distro, or "" for the
// namespace that distros share.
func (l *Listener) netns() string {
	if l.Isolated {
		return l.Distro
	}
	return ""
}

// Rule forwards a port, a port range or a socket, whether or not anything listens.
type Rule struct {
	Network string
	Host    []netip.AddrPort // to listen on; empty for a reverse rule
	Path    string           // of a unix socket on the host: to listen on, or to connect to for a reverse rule
	Dial    string           // for a reverse rule: the host's address to connect to, "HOST:PORT"

	Reverse bool
	// Guest has the name of a distro if Config.DistroID knows names. For a TCP or UDP rule
	// that is not reverse, the address is ":PORT" and means any address with a listener.
	Guest Target
}

// Limits bound the resources of the host that a guest can use. Zero means the default.
type Limits struct {
	Ports       int // that are opened automatically: 2048
	Connections int // that are open at once: 8192
	Reverse     int // those of Connections that begin in the guest: 1024
	Flows       int // of UDP, open at once: 1024
}

// Config is the configuration of a [Forwarder].
type Config struct {
	Guest Guest
	Rules []Rule
	// Auto returns the host's addresses on which to open a listener's port, or none to leave
	// the port closed. nil: no port is opened automatically.
	Auto func(Listener) []netip.Addr
	// DistroID returns the id of the distro with the name in a rule; "" if there is none.
	// nil: rules have ids.
	DistroID func(name string) string
	// NextFree says to use the next free port of the host if the port is taken.
	NextFree bool
	// PortOwner finds who listens on an address of the host. It may take long. nil: it is
	// never known.
	PortOwner func(ctx context.Context, network string, at netip.AddrPort) Owner
	// Allow says why a client on the host may not use a port, or nil. It is called for each
	// connection, and for each new client of UDP. nil: all may.
	Allow  func(network string, client, at netip.AddrPort) error
	Limits Limits
	Logger *slog.Logger // nil discards
}

// Kinds of a [Port].
const (
	KindAuto    = "auto"
	KindRule    = "rule"
	KindReverse = "reverse"
	KindSocket  = "socket"
)

// States of a [Port].
const (
	StateOpen    = "open"
	StateWaiting = "waiting" // open, but nobody listens at its other end
	StateFailed  = "failed"  // Reason says why
)

// Port is a forwarded port or socket, or one whose forwarding failed.
type Port struct {
	Kind    string
	Network string
	Host    []string // addresses, or the path, on the host
	Distro  string   // id; "" for no particular one
	Guest   string   // address or path in the distro
	PID     int      // of the process in the distro; 0 if unknown
	Process string
	State   string
	Reason  string // for people, verbatim; "" for none
	Opened  time.Time

	Active, Connections, Failed int64
	ToGuest, ToHost             int64 // bytes
}

// Forwarder forwards ports. It is safe for concurrent use.
type Forwarder struct {
	cfg Config
	log *slog.Logger

	conns  *limiter.Limiter
	back   *limiter.Limiter // those of conns that begin in the guest
	flows  *limiter.Limiter // of UDP
	wg     sync.WaitGroup   // of connections, flows and listeners
	asking sync.Mutex       // held while Config.PortOwner is asked

	mu        sync.Mutex
	ctx       context.Context // nil until Run
	listeners []Listener
	ports     map[portKey]*port
	changed   chan struct{} // closed and replaced at every change
	wake      chan struct{} // makes Run check again
}

// New returns a forwarder. It does nothing until Run is called.
func New(cfg Config) *Forwarder {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&cfg.Limits.Ports, 2048)
	setDefault(&cfg.Limits.Connections, 8192)
	setDefault(&cfg.Limits.Reverse, 1024)
	setDefault(&cfg.Limits.Flows, 1024)
	return &Forwarder{
		cfg: cfg, log: cfg.Logger,
		conns: limiter.New(cfg.Logger, cfg.Limits.Connections, "a connection is refused: too many are open"),
		back:  limiter.New(cfg.Logger, cfg.Limits.Reverse, "a connection of the guest is refused: too many are open"),
		flows: limiter.New(cfg.Logger, cfg.Limits.Flows, "UDP packets are dropped: too many clients are being served"),
		ports: map[portKey]*port{}, changed: make(chan struct{}), wake: make(chan struct{}, 1),
	}
}

func setDefault(v *int, def int) {
	if *v <= 0 {
		*v = def
	}
}

// Run forwards until ctx is done. It closes everything that it has opened before it returns.
func (f *Forwarder) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	for _, r := range f.cfg.Rules {
		if r.Reverse {
			f.wg.Go(func() { f.reverse(ctx, r) })
		}
	}
	for {
		retry := f.reconcile(ctx)
		var again <-chan time.Time
		if retry {
			again = time.After(retryEvery)
		}
		select {
		case <-ctx.Done():
			f.closeAll()
			f.wg.Wait()
			return
		case <-f.wake:
		case <-again:
		}
	}
}

// retryEvery is the time between two attempts to open a port.
const retryEvery = 2 * time.Second

// SetListeners replaces the list of listening sockets in the guest.
func (f *Forwarder) SetListeners(all []Listener) {
	f.mu.Lock()
	f.listeners = all
	f.mu.Unlock()
	f.look()
}

// look has Run look again.
func (f *Forwarder) look() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// resolve returns a rule's target with the id of its distro. If the distro does not exist, ok
// is false and the target keeps the name, for the guest's error message.
func (f *Forwarder) resolve(t Target) (_ Target, ok bool) {
	if t.Distro == "" || f.cfg.DistroID == nil {
		return t, true
	}
	id := f.cfg.DistroID(t.Distro)
	if id == "" {
		return t, false
	}
	t.Distro = id
	return t, true
}

// Ports returns all forwarded ports, sorted, and a channel that is closed at the next change
// of anything but the counters.
func (f *Forwarder) Ports() ([]Port, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list(), f.changed
}

// tellChange wakes those who wait on the channel of Ports. The caller holds f.mu.
func (f *Forwarder) tellChange() {
	close(f.changed)
	f.changed = make(chan struct{})
}
