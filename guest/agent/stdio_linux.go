package agent

import (
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/account"
	"github.com/lsub/lsub/guest/agent/ttywait"
	"github.com/lsub/lsub/guest/guestv1"
)

// openStdio makes the command's stdio, and returns its side of it. ctty is the index of
// its terminal, if it has one.
func (p *process) openStdio(cmd *guestv1.Exec, who *account.Account, ev *ttywait.Events) (theirs []*os.File, ctty int, err error) {
	var slave *os.File
	defer func() {
		if err != nil {
			p.close()
			closeAll(theirs)
		}
	}()
	if cmd.Tty {
		if p.tty, slave, _, err = openPTY("/dev/ptmx"); err != nil {
			return nil, 0, err
		}
		p.resize(uint16(cmd.Rows), uint16(cmd.Cols))
		slave.Chown(int(who.UID), 5) // group tty, as devpts gives it; the owner may be changed by anybody's mesg
		if cmd.Pipes == nil {
			return []*os.File{slave, slave, slave}, 0, nil
		}
		if p.waits, err = watchTTY(p.tty, ev); err != nil {
			slave.Close()
			return nil, 0, err
		}
	}
	for _, s := range []struct {
		ours    **os.File
		pipe    bool
		weWrite bool
	}{
		{&p.stdin, slave == nil || cmd.Pipes.Stdin, true},
		{&p.stdout, slave == nil || cmd.Pipes.Stdout, false},
		{&p.stderr, slave == nil || cmd.Pipes.Stderr, false},
	} {
		f := slave
		if s.pipe {
			if *s.ours, f, err = openPipe(s.weWrite); err != nil {
				return theirs, 0, err
			}
		}
		theirs = append(theirs, f)
	}
	if slave == nil {
		return theirs, 0, nil
	}
	if ctty = slices.Index(theirs, slave); ctty < 0 {
		// It stays open in the command: there is no other way to hand it over.
		theirs, ctty = append(theirs, slave), len(theirs)
	}
	return theirs, ctty, nil
}

// openPipe returns our end of a pipe and the command's.
func openPipe(weWrite bool) (ours, theirs *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	if weWrite {
		return w, r, nil
	}
	// Room for a whole frame: fewer turns between the two.
	unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, guest.MaxPayload)
	unix.SetNonblock(int(r.Fd()), true) // which Fd took away
	return r, w, nil
}

// closeAll closes files, of which some may be the same.
func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func (p *process) close() {
	if p.waits != nil {
		p.waits.Close()
	}
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr, p.tty} {
		if f != nil {
			f.Close()
		}
	}
}

func (p *process) resize(rows, cols uint16) {
	if p.tty == nil || rows == 0 || cols == 0 {
		return
	}
	if rc, err := p.tty.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) {
			unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
		})
	}
}

// watchTTY watches a terminal, by another descriptor of its end.
func watchTTY(master *os.File, ev *ttywait.Events) (*ttywait.Terminal, error) {
	tty, err := openPeer(master, unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	t, err := ev.Watch(tty)
	if err != nil {
		tty.Close()
	}
	return t, err
}

// ttyEvents are opened for the first command that needs them, and stay.
type ttyEvents struct {
	once sync.Once
	ev   *ttywait.Events
}

// ttyEvents returns the events of a command with a terminal beside pipes, or nil.
func (a *Agent) ttyEvents(cmd *guestv1.Exec) *ttywait.Events {
	if !cmd.Tty || cmd.Pipes == nil {
		return nil
	}
	a.ttys.once.Do(func() {
		var err error
		if a.ttys.ev, err = ttywait.Open(a.log); err != nil {
			a.log.Warn("no events of terminals; looking at them time and again", "err", err)
		}
	})
	return a.ttys.ev
}
