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
)

// events tells that the listeners may have changed. What has changed, a look at
// the sockets tells: an event has nothing in it but that it came.
//
// A few small programs in the kernel send them, each at a point where the
// kernel's tables have changed already, so that no look comes too early:
//
//   - the return of inet_csk_listen_start: a TCP socket listens
//   - inet_sock_set_state, from LISTEN to CLOSE: it does no more
//   - post_bind4 and post_bind6 of control groups: a UDP socket is bound
//   - the return of udp_lib_unhash: one is gone
//
// They see all network namespaces. sock_diag's own groups (SKNLGRP_INET_UDP_DESTROY)
// would tell of the last, but with this kernel they do not.
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
	l, err = link.Kretprobe("udp_lib_unhash", listen, nil)
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
