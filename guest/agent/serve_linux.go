package agent

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/ttywait"
	"github.com/lsub/lsub/guest/guestv1"
)

// hangUpDelay is how long a terminal is read on after its command has ended,
// where others still hold it open.
const hangUpDelay = 150 * time.Millisecond

// serve moves a command's stdio until it ends. What it leaves running in the
// background may go on; its last output is read, but not waited for.
func (p *process) serve(ctx context.Context, in *hostInput, w *guest.Writer) (*guestv1.Exit, error) {
	defer p.close()
	hangUp := context.AfterFunc(ctx, p.hangUp)
	go p.copyStdin(in.stdin)
	ended := make(chan struct{})
	var outputs, passing sync.WaitGroup
	ask := &asker{w: w, tty: p.tty, waits: p.waits}
	for t, f := range p.outputs() {
		before := func() {}
		if t == guest.FrameScreen {
			before = ask.output
		}
		outputs.Go(func() { copyFrames(w, t, f, before) })
	}
	passing.Go(func() { p.applyControls(in.controls, ended) })
	if p.waits != nil {
		go p.copyKeys(in.keys)
		p.waits.Follow(ask.want)
	}

	st, err := p.proc.Wait()
	hangUp() // the process id is free from here on
	close(ended)
	passing.Wait()
	if p.waits != nil {
		p.waits.Close()
	}
	for _, f := range p.outputs() {
		if f != p.tty {
			f.SetReadDeadline(time.Now())
			continue
		}
		// What the command wrote last may still be on its way through the
		// terminal; its end comes when nobody holds the terminal any more.
		f.SetReadDeadline(time.Now().Add(hangUpDelay))
	}
	outputs.Wait()
	for t, f := range p.outputs() {
		if f != p.tty {
			drain(w, t, f)
		}
	}
	if err != nil {
		return nil, err
	}
	ws := st.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return &guestv1.Exit{Signal: int32(ws.Signal())}, nil
	}
	return &guestv1.Exit{Code: int32(ws.ExitStatus())}, nil
}

// outputs are our ends of what the command writes to.
func (p *process) outputs() map[guest.FrameType]*os.File {
	all := map[guest.FrameType]*os.File{guest.FrameStdout: p.stdout, guest.FrameStderr: p.stderr}
	switch {
	case p.waits != nil:
		all[guest.FrameScreen] = p.tty
	case p.tty != nil:
		all[guest.FrameStdout] = p.tty
	}
	maps.DeleteFunc(all, func(_ guest.FrameType, f *os.File) bool { return f == nil })
	return all
}

// copyStdin passes the host's input on until its end, or until nobody reads it.
func (p *process) copyStdin(in *stdinBuffer) {
	switch {
	case p.stdin != nil:
		io.Copy(p.stdin, in)
		p.stdin.Close()
		return
	case p.waits != nil:
		return // its input are keys
	}
	if _, err := io.Copy(p.tty, in); err != nil {
		return
	}
	// The end of a host's input that is no terminal. Each read is to see it, as with a
	// pipe; and one that came before the command changed the terminal's mode is lost, as
	// with bash. So it is typed until the command ends, which closes the terminal.
	for pause := eofPause; ; pause = min(2*pause, time.Second) {
		if _, err := p.tty.Write([]byte{endOfFile(p.tty)}); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// eofPause is the time between the first two ends of the input.
const eofPause = 50 * time.Millisecond

// endOfFile is the character that means the end of the input at a terminal: Ctrl-D, unless
// the command has chosen another.
func endOfFile(tty *os.File) byte {
	if t, err := getTermios(tty); err == nil && t.Cc[unix.VEOF] != 0 {
		return t.Cc[unix.VEOF]
	}
	return 4
}

// copyKeys passes keys on to a terminal beside pipes, and hangs it up at their end.
func (p *process) copyKeys(keys *stdinBuffer) {
	if _, err := io.Copy(p.tty, keys); err == nil {
		p.tty.Close()
	}
}

// asker asks for the host's terminal.
type asker struct {
	w     *guest.Writer
	tty   *os.File // master
	waits *ttywait.Terminal

	mu     sync.Mutex
	wanted bool
	asked  guest.Ask
}

// want notes whether a process waits for keys.
func (a *asker) want(wanted bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = wanted
	a.send()
}

// output is called before what was written to the terminal is sent: its mode may have changed.
// A program that has switched the echo off is about to wait for keys, and nobody is to type a
// password at a prompt before the host's echo is off, too.
func (a *asker) output() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.wanted && !a.waits.Plain() {
		a.waits.Begin()
		a.wanted = true
	}
	if a.wanted {
		a.send()
	}
}

func (a *asker) send() {
	ask := guest.AskNothing
	if a.wanted {
		ask = guest.AskKeys
		if t, err := getTermios(a.tty); err == nil && t.Oflag&unix.OPOST == 0 {
			ask = guest.AskAll
		}
	}
	if ask != a.asked {
		a.asked = ask
		a.w.Send(guest.FrameAsk, []byte{byte(ask)})
	}
}

func getTermios(tty *os.File) (t *unix.Termios, err error) {
	rc, err := tty.SyscallConn()
	if err != nil {
		return nil, err
	}
	if cerr := rc.Control(func(fd uintptr) { t, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) }); cerr != nil {
		return nil, cerr
	}
	return t, err
}

// applyControls passes signals and sizes on until the command has ended, after which
// its process id may be another's.
func (p *process) applyControls(controls <-chan controlFrame, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case c := <-controls:
			if c.signal != 0 {
				p.signal(c.signal)
			} else {
				p.resize(c.rows, c.cols)
			}
		}
	}
}

// hangUp does what the end of a terminal does: its readers see the end, and its session
// gets SIGHUP. A command with pipes gets the signal in any case.
func (p *process) hangUp() {
	if p.tty != nil {
		p.tty.Close()
	}
	if p.tty == nil || p.waits != nil {
		p.signal(int(unix.SIGHUP))
	}
}

// signal sends a signal to the command's process group, which is its own.
func (p *process) signal(sig int) {
	if sig > 0 && sig <= 64 {
		unix.Kill(-p.proc.Pid, unix.Signal(sig))
	}
}

// copyFrames sends what f has until its end, an error, or its deadline, each frame after a
// call of before. When
// the host is gone, the rest is read and thrown away, so that a command that
// survives its hang-up does not stand still.
func copyFrames(w *guest.Writer, t guest.FrameType, f *os.File, before func()) {
	buf := make([]byte, guest.HeaderSize+128<<10)
	broken := false
	for {
		n, err := f.Read(buf[guest.HeaderSize:])
		if n > 0 && !broken {
			before()
			broken = w.SendBuffer(t, buf[:guest.HeaderSize+n]) != nil
		}
		if err != nil {
			return
		}
	}
}

// drain sends what a pipe holds now, without waiting for more: a background
// process may write on for ever.
func drain(w *guest.Writer, t guest.FrameType, f *os.File) {
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	f.SetReadDeadline(time.Time{})
	left := 0
	rc.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	buf := make([]byte, guest.HeaderSize+64<<10)
	for left > 0 {
		var n int
		var rerr error
		rc.Read(func(fd uintptr) bool {
			n, rerr = unix.Read(int(fd), buf[guest.HeaderSize:guest.HeaderSize+min(left, 64<<10)])
			return true
		})
		if errors.Is(rerr, unix.EINTR) {
			continue
		}
		if n <= 0 || w.SendBuffer(t, buf[:guest.HeaderSize+n]) != nil {
			return
		}
		left -= n
	}
}
