package listeners

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// events tells that the listeners may have changed. What has changed, a look at
// the sockets tells: an event has nothing in it but that it came.
//
// Four small programs in the kernel send them, each at a point where the
// kernel's tables have changed already, so that no look comes too early:
//
//   - the return of inet_csk_listen_start: a TCP socket listens
//   - inet_sock_set_state, from LISTEN to CLOSE: it does no more
//   - post_bind4 and post_bind6 of control groups: a UDP socket is bound
//
// They see all network namespaces. That a UDP socket is gone, sock_diag tells by itself
// (SKNLGRP_INET_UDP_DESTROY), in each namespace for itself: see view.
type events struct {
	c       chan struct{}
	closers []func() error
}

// openEvents switches the events on. The caller closes them.
func openEvents(log *slog.Logger) (_ *events, err error) {
	ev := &events{c: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			ev.close()
		}
	}()
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Name: "lsub_listeners", Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
	if err != nil {
		return nil, fmt.Errorf("ring buffer: %w", err)
	}
	ev.closers = append(ev.closers, ring.Close)
	if err := ev.attach(ring.FD()); err != nil {
		return nil, err
	}
	reader, err := ringbuf.NewReader(ring)
	if err != nil {
		return nil, fmt.Errorf("ring buffer: %w", err)
	}
	ev.closers = append(ev.closers, reader.Close)
	go ev.readRing(reader, log)
	return ev, nil
}

// close switches the events off; what reads them ends.
func (ev *events) close() {
	for i := len(ev.closers) - 1; i >= 0; i-- {
		ev.closers[i]()
	}
}

// fire makes an event of any number of them.
func (ev *events) fire() {
	select {
	case ev.c <- struct{}{}:
	default:
	}
}

func (ev *events) readRing(r *ringbuf.Reader, log *slog.Logger) {
	var rec ringbuf.Record
	for {
		err := r.ReadInto(&rec)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			log.Error("the events of listeners have ended", "err", err)
			return
		}
		ev.fire()
	}
}

// attach loads the programs and attaches them.
func (ev *events) attach(ring int) error {
	listen, err := ev.load(ebpf.Kprobe, 0, send(ring, 0))
	if err != nil {
		return err
	}
	closed, err := ev.load(ebpf.RawTracepoint, 0, append(asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 8, asm.DWord),  // the old state
		asm.LoadMem(asm.R3, asm.R1, 16, asm.DWord), // the new one
		asm.Mov.Imm(asm.R0, 0),
		asm.JNE.Imm(asm.R2, stateListen, "exit"),
		asm.JNE.Imm(asm.R3, stateClose, "exit"), // a connection that comes begins as a copy of its listener
	}, send(ring, 0)...))
	if err != nil {
		return err
	}
	l, err := link.Kretprobe("inet_csk_listen_start", listen, nil)
	if err := ev.keep(l, err); err != nil {
		return err
	}
	l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "inet_sock_set_state", Program: closed})
	if err := ev.keep(l, err); err != nil {
		return err
	}
	for _, at := range []ebpf.AttachType{ebpf.AttachCGroupInet4PostBind, ebpf.AttachCGroupInet6PostBind} {
		const protocol = 12 // offset in struct bpf_sock
		bind, err := ev.load(ebpf.CGroupSock, at, append(asm.Instructions{
			asm.LoadMem(asm.R1, asm.R1, protocol, asm.Word),
			asm.Mov.Imm(asm.R0, 1),
			asm.JNE.Imm(asm.R1, protoUDP, "exit"),
		}, send(ring, 1)...)) // 1 lets the bind be
		if err != nil {
			return err
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: groupRoot, Attach: at, Program: bind})
		if err := ev.keep(l, err); err != nil {
			return err
		}
	}
	return nil
}

func (ev *events) load(kind ebpf.ProgramType, at ebpf.AttachType, code asm.Instructions) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "lsub_listeners", Type: kind, AttachType: at, Instructions: code, License: "GPL"})
	if err != nil {
		return nil, fmt.Errorf("program of type %v: %w", kind, err)
	}
	ev.closers = append(ev.closers, p.Close)
	return p, nil
}

func (ev *events) keep(l link.Link, err error) error {
	if err != nil {
		return fmt.Errorf("attach a program: %w", err)
	}
	ev.closers = append(ev.closers, l.Close)
	return nil
}

// send is code that sends an event and returns result. Its end is "exit".
func send(ring int, result int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, ring),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.Mov.Imm(asm.R3, 8),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(), // fails where the ring is full: then an event waits already
		asm.Mov.Imm(asm.R0, result),
		asm.Return().WithSymbol("exit"),
	}
}

// Groups of sock_diag that tell of a socket's end.
const (
	groupUDPDestroyed  = 2 // SKNLGRP_INET_UDP_DESTROY
	groupUDP6Destroyed = 4 // SKNLGRP_INET6_UDP_DESTROY
)

// openDestroyed hears of the UDP sockets that are gone in the calling thread's
// network namespace.
func openDestroyed() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	f := os.NewFile(uintptr(fd), "sock_diag")
	for _, group := range []int{groupUDPDestroyed, groupUDP6Destroyed} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			f.Close()
			return nil, fmt.Errorf("sock_diag: hear of sockets' ends: %w", err)
		}
	}
	return f, nil
}

func (ev *events) readDestroyed(f *os.File) {
	buf := make([]byte, 8<<10)
	for {
		// Where some were lost (ENOBUFS), the look that follows makes up for it.
		if _, err := f.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		ev.fire()
	}
}
