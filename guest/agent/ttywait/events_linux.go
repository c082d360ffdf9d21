package ttywait

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Events tells which terminals processes begin to wait for. It is safe for concurrent use.
type Events struct {
	armed *ebpf.Map // key: the kernel's address of a terminal that the next wait of makes an event; that removes it
	learn *ebpf.Map // one entry: a thread of ours, and the terminal that it has read last
	ring  *ringbuf.Reader

	closers  []func() error
	learning sync.Mutex

	mu      sync.Mutex
	watches map[uint64]*watch
}

// watch is a terminal that is watched.
type watch struct {
	ev    *Events
	at    uint64 // the kernel's address of it
	begun chan waiter
}

const ringSize = 64 << 10 // of a record of 24 bytes for each terminal

// Open has the kernel send events. It takes some 10 ms.
func Open(log *slog.Logger) (_ *Events, err error) {
	ev := &Events{watches: map[uint64]*watch{}}
	defer func() {
		if err != nil {
			ev.Close()
		}
	}()
	ring, err := ev.newMap(&ebpf.MapSpec{Name: "lsub_ttys", Type: ebpf.RingBuf, MaxEntries: ringSize})
	if err != nil {
		return nil, err
	}
	if ev.armed, err = ev.newMap(&ebpf.MapSpec{Name: "lsub_ttys_armed", Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 4096}); err != nil {
		return nil, err
	}
	if ev.learn, err = ev.newMap(&ebpf.MapSpec{Name: "lsub_ttys_learn", Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1}); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		at   string
		code asm.Instructions
	}{
		{"n_tty_read", append(asm.Instructions{asm.Mov.Reg(asm.R9, asm.R1)}, report(ring.FD(), ev.armed.FD(), ev.learn.FD())...)},
		{"n_tty_poll", append(onlyForInput(), report(ring.FD(), ev.armed.FD(), ev.learn.FD())...)},
	} {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "lsub_ttys", Type: ebpf.Kprobe, Instructions: p.code, License: "GPL"})
		if err != nil {
			return nil, fmt.Errorf("program for %s: %w", p.at, err)
		}
		ev.closers = append(ev.closers, program.Close)
		l, err := link.Kprobe(p.at, program, nil)
		if err != nil {
			return nil, fmt.Errorf("attach to %s: %w", p.at, err)
		}
		ev.closers = append(ev.closers, l.Close)
	}
	if ev.ring, err = ringbuf.NewReader(ring); err != nil {
		return nil, fmt.Errorf("ring buffer: %w", err)
	}
	ev.closers = append(ev.closers, ev.ring.Close)
	go ev.read(log)
	return ev, nil
}

// Close ends the events.
func (ev *Events) Close() {
	for i := len(ev.closers) - 1; i >= 0; i-- {
		ev.closers[i]()
	}
}

func (ev *Events) newMap(spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", spec.Name, err)
	}
	ev.closers = append(ev.closers, m.Close)
	return m, nil
}

// read passes events on to the watches.
func (ev *Events) read(log *slog.Logger) {
	var rec ringbuf.Record
	for {
		err := ev.ring.ReadInto(&rec)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil || len(rec.RawSample) < 16 {
			log.Error("the events of terminals have ended", "err", err)
			return
		}
		ids := binary.NativeEndian.Uint64(rec.RawSample[8:])
		ev.mu.Lock()
		w := ev.watches[binary.NativeEndian.Uint64(rec.RawSample)]
		ev.mu.Unlock()
		if w != nil {
			select {
			case w.begun <- waiter{pid: uint32(ids >> 32), tid: uint32(ids)}:
			default: // there is no second one before it is armed again
			}
		}
	}
}

// add begins to watch a terminal.
func (ev *Events) add(tty *os.File) (*watch, error) {
	at, err := ev.addressOf(tty)
	if err != nil {
		return nil, err
	}
	w := &watch{ev: ev, at: at, begun: make(chan waiter, 1)}
	ev.mu.Lock()
	ev.watches[at] = w
	ev.mu.Unlock()
	if err := w.arm(); err != nil {
		ev.remove(w)
		return nil, err
	}
	return w, nil
}

// remove ends a watch. The terminal must still be open: its address is then another's.
func (ev *Events) remove(w *watch) {
	ev.mu.Lock()
	delete(ev.watches, w.at)
	ev.mu.Unlock()
	ev.armed.Delete(w.at)
}

// arm makes the next wait an event.
func (w *watch) arm() error { return w.ev.armed.Put(w.at, uint64(0)) }

// addressOf has the program tell the kernel's address of a terminal: this thread reads
// nothing from it.
func (ev *Events) addressOf(tty *os.File) (uint64, error) {
	ev.learning.Lock()
	defer ev.learning.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var entry [2]uint64
	entry[0] = uint64(os.Getpid())<<32 | uint64(unix.Gettid())
	if err := ev.learn.Put(uint32(0), &entry); err != nil {
		return 0, err
	}
	control(tty, func(fd int) { unix.Read(fd, nil) })
	if err := ev.learn.Lookup(uint32(0), &entry); err != nil {
		return 0, err
	}
	if entry[1] == 0 {
		return 0, errors.New("the kernel does not tell of reads of terminals")
	}
	return entry[1], nil
}

// onlyForInput is code that ends where a poll is not one for input, or does not wait. It
// leaves the program's argument in R9.
func onlyForInput() asm.Instructions {
	const events = 8 // offset of _key in struct poll_table_struct
	return asm.Instructions{
		asm.Mov.Reg(asm.R9, asm.R1),
		asm.LoadMem(asm.R3, asm.R1, arg3, asm.DWord),
		asm.JEq.Imm(asm.R3, 0, "exit"),
		asm.Add.Imm(asm.R3, events),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -32),
		asm.Mov.Imm(asm.R2, 4),
		asm.FnProbeReadKernel.Call(),
		asm.JNE.Imm(asm.R0, 0, "exit"),
		asm.LoadMem(asm.R1, asm.RFP, -32, asm.Word),
		asm.And.Imm(asm.R1, unix.EPOLLIN|unix.EPOLLRDNORM),
		asm.JEq.Imm(asm.R1, 0, "exit"),
	}
}

// report is code that sends an event about the terminal that is the first argument of the
// function whose registers R9 points to, if it is armed. Our own reads and polls send none;
// those of the thread that learns tell it the terminal's address.
func report(ring, armed, learn int) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R6, asm.R9, arg1, asm.DWord),
		asm.StoreMem(asm.RFP, -16, asm.R6, asm.DWord),
		asm.FnGetCurrentPidTgid.Call(),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.StoreMem(asm.RFP, -8, asm.R8, asm.DWord),

		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, -24, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, learn),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -24),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.JNE.Reg(asm.R1, asm.R8, "another"),
		asm.StoreMem(asm.R0, 8, asm.R6, asm.DWord),
		asm.Ja.Label("exit"),

		asm.RSh.Imm(asm.R8, 32).WithSymbol("another"),
		asm.JEq.Imm(asm.R8, int32(os.Getpid()), "exit"),
		asm.LoadMapPtr(asm.R1, armed),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -16),
		asm.FnMapDeleteElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "exit"),
		asm.LoadMapPtr(asm.R1, ring),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -16),
		asm.Mov.Imm(asm.R3, 16),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
		asm.Return(),
	}
}
