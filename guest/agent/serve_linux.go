package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// hangUpDelay is how long a terminal is read on after its command has ended,
// where others still hold it open.
const hangUpDelay = 150 * time.Millisecond

// serve moves a command's stdio until it ends. What it leaves running in the
// background may go on; its last output is read, but not waited for.
func (p *process) serve(ctx context.Context, in *stdinBuffer, controls <-chan controlFrame, w *guest.Writer) (*guestv1.Exit, error) {
	defer p.close()
	hangUp := context.AfterFunc(ctx, p.hangUp)
	go p.copyStdin(in)
	ended := make(chan struct{})
	var outputs, passing sync.WaitGroup
	outputs.Go(func() { copyFrames(w, guest.FrameStdout, p.output()) })
	if p.stderr != nil {
		outputs.Go(func() { copyFrames(w, guest.FrameStderr, p.stderr) })
	}
	passing.Go(func() { p.applyControls(controls, ended) })

	st, err := p.proc.Wait()
	hangUp() // the process id is free from here on
	close(ended)
	passing.Wait()
	if p.tty != nil {
		// What the command wrote last may still be on its way through the
		// terminal; its end comes when nobody holds the terminal any more.
		p.tty.SetReadDeadline(time.Now().Add(hangUpDelay))
	} else {
		p.stdout.SetReadDeadline(time.Now())
		p.stderr.SetReadDeadline(time.Now())
	}
	outputs.Wait()
	if p.tty == nil {
		drain(w, guest.FrameStdout, p.stdout)
		drain(w, guest.FrameStderr, p.stderr)
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

func (p *process) output() *os.File {
	if p.tty != nil {
		return p.tty
	}
	return p.stdout
}

// copyStdin passes the host's input on until its end, or until nobody reads it.
func (p *process) copyStdin(in *stdinBuffer) {
	if p.tty == nil {
		io.Copy(p.stdin, in)
		p.stdin.Close()
		return
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
	eof := byte(4)
	if rc, err := tty.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) {
			if t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil && t.Cc[unix.VEOF] != 0 {
				eof = t.Cc[unix.VEOF]
			}
		})
	}
	return eof
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
// gets SIGHUP. A command without a terminal gets the signal alone.
func (p *process) hangUp() {
	if p.tty != nil {
		p.tty.Close()
		return
	}
	p.signal(int(unix.SIGHUP))
}

// signal sends a signal to the command's process group, which is its own.
func (p *process) signal(sig int) {
	if sig > 0 && sig <= 64 {
		unix.Kill(-p.proc.Pid, unix.Signal(sig))
	}
}

// copyFrames sends what f has until its end, an error, or its deadline. When
// the host is gone, the rest is read and thrown away, so that a command that
// survives its hang-up does not stand still.
func copyFrames(w *guest.Writer, t guest.FrameType, f *os.File) {
	buf := make([]byte, guest.HeaderSize+128<<10)
	broken := false
	for {
		n, err := f.Read(buf[guest.HeaderSize:])
		if n > 0 && !broken {
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
