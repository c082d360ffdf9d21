package tcredirect

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// guard keeps the rules of container engines away from the supervisor's
// connections. These come in by lo without having gone out by it, so that an
// engine's rule for what comes from outside ("to any address of this machine: to the
// container") would take them, as it does not take what programs here send to
// 127.0.0.1. Before it, a rule of ours leads them to where they go anyway, and the
// kernel asks no other.
//
// Such rules take modules, which most distros never load; the rule of ours is made
// when they are there. The table belongs to the socket that it was made by: nobody
// flushes it, and it goes with the socket.
type guard struct {
	log    *slog.Logger
	events *os.File // of the module
	table  *os.File // owns the table
	done   chan struct{}
}

// natModule is what each rule that translates addresses needs, and added what the
// kernel says when it is loaded.
const (
	natModule = "nf_nat"
	added     = "add@/module/" + natModule + "\x00"
)

// openGuard begins in the calling thread's network namespace. The caller closes it.
func openGuard(log *slog.Logger) (*guard, error) {
	events, err := openEvents(added)
	if err != nil {
		return nil, err
	}
	table, err := netlinkSocket(unix.NETLINK_NETFILTER, 0, nil) // for later, when the thread may be another
	if err != nil {
		events.Close()
		return nil, err
	}
	g := &guard{log: log, events: events, table: table, done: make(chan struct{})}
	go g.run()
	return g, nil
}

func (g *guard) close() {
	g.events.Close()
	<-g.done
	g.table.Close()
}

// run makes the rule once it is due.
func (g *guard) run() {
	defer close(g.done)
	// A part of the kernel that is no module of its own is no event, and not even a
	// directory unless it has parameters, as connection tracking has.
	if !isThere(natModule) && !isThere("nf_conntrack") && !g.await() {
		return
	}
	if err := request(g.table, natRules()); err != nil {
		g.log.Warn("ports that container engines publish may not be reached from the host", "err", err)
	}
}

func isThere(module string) bool {
	_, err := os.Stat("/sys/module/" + module)
	return err == nil
}

// await waits until the module is loaded. It is false when the guard is closed
// before.
func (g *guard) await() bool {
	buf := make([]byte, 8<<10)
	for {
		n, err := g.events.Read(buf)
		if err != nil {
			return false
		}
		if bytes.HasPrefix(buf[:n], []byte(added)) {
			return true
		}
	}
}

// openEvents opens a socket for the kernel's events that begin with prefix, to a
// multiple of 4 bytes. A filter holds back the others: a system that starts has every
// device's repeated.
func openEvents(prefix string) (*os.File, error) {
	const kernelsOwn = 1 // group; 2 is udev's
	var filter []unix.SockFilter
	for at := 0; at+4 <= len(prefix); at += 4 {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(at)},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: binary.BigEndian.Uint32([]byte(prefix[at:])), Jt: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: ^uint32(0)})
	return netlinkSocket(unix.NETLINK_KOBJECT_UEVENT, kernelsOwn, filter)
}

// netlinkSocket opens a socket that takes what the filter lets through of what
// is sent to the groups.
func netlinkSocket(proto int, groups uint32, filter []unix.SockFilter) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("netlink %d: %w", proto, err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	if len(filter) > 0 {
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("netlink %d: %w", proto, err)
	}
	return f, nil
}

// answerTimeout bounds the wait for the kernel's answer, which may have modules
// to load.
const answerTimeout = 30 * time.Second

// request sends a batch of messages, and waits until the kernel has taken them, or
// one of them not.
func request(f *os.File, messages [][]byte) error {
	if err := f.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := f.Write(bytes.Join(messages, nil)); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	buf := make([]byte, 8<<10)
	for acks := len(messages) - 2; acks > 0; { // not for begin and end
		n, err := f.Read(buf)
		if err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN+4; {
			size, kind := int(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:])
			if kind == unix.NLMSG_ERROR {
				if code := int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); code != 0 {
					return fmt.Errorf("nftables: %w", unix.Errno(-code))
				}
				acks--
			}
			b = b[min(max(align(size), unix.NLMSG_HDRLEN), len(b)):]
		}
	}
	return nil
}
