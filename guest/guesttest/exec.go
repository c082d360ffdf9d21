package guesttest

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// process is a command that runs.
type process struct {
	g      *Guest
	s      *stream
	distro string // id
	argv   []string
	env    []string
	user   string
	cwd    string
	tty    bool
	pipes  *guestv1.Pipes // beside the terminal

	reason string // why a signal ended it

	stdin          io.Reader
	stdout, stderr io.Writer
	screen         io.Writer // of /dev/tty
	trap           chan int  // gets the signals, where the command wants them
	trapped        chan struct{}
	done           chan struct{} // closed when its end is known
}

// exec runs a command and returns how it ended.
func (g *Guest) exec(m *guestv1.Exec, s *stream) (*guestv1.Exit, error) {
	made, err := g.disk.enter(m.Distro.GetId())
	if err != nil {
		return nil, err
	}
	defer g.disk.leave(m.Distro.GetId())
	p := &process{g: g, s: s, distro: m.Distro.GetId(), tty: m.Tty, pipes: m.Pipes, user: cmp.Or(string(m.User), g.disk.ownUser(m.Distro.GetId()), m.Distro.GetDefaultUser()), trapped: make(chan struct{}), done: make(chan struct{}), trap: make(chan int, 16)}
	if p.user == "" {
		p.user = "root"
	}
	numbered := len(m.User) == 0 && strings.Trim(p.user, "0123456789:") == "" // the default user needs no account
	if !slices.Contains([]string{"root", "nobody", made}, p.user) && !numbered {
		return nil, guest.NoUser(p.user)
	}
	home := "/home/" + p.user
	if p.user == "root" {
		home = "/root"
	}
	if p.cwd = string(m.Cwd); p.cwd == "" || p.cwd == "~" {
		p.cwd = home
	}
	share := g.shares.find(string(m.HostCwd))
	if share != nil && len(m.Cwd) == 0 {
		p.cwd = "/mnt/host/" + string(m.HostCwd)
	} else if !slices.Contains([]string{"/", "/tmp", home}, path.Clean(p.cwd)) {
		return nil, guest.NoDirectory(p.cwd)
	}
	p.env = append([]string{"HOME=" + home, "USER=" + p.user, "DISTRO=" + m.Distro.Name}, g.disk.imageEnv(m.Distro.GetId())...)
	for _, e := range m.Env {
		p.env = append(p.env, string(e))
	}
	for _, a := range m.Argv {
		p.argv = append(p.argv, string(a))
	}
	s.resize(uint16(m.Rows), uint16(m.Cols))
	p.stdout, p.stderr = frameWriter{s.w, guest.FrameStdout}, frameWriter{s.w, guest.FrameStderr}
	p.stdin = &s.stdin
	switch {
	case p.tty && p.pipes == nil:
		p.stderr = p.stdout
	case p.tty:
		p.openTerminal()
	}
	run, err := p.command(m.Login)
	if err != nil {
		return nil, err
	}
	s.w.SendMessage(guest.FrameStarted, &guestv1.Started{ReadOnlyShare: share != nil && len(m.Cwd) == 0 && share.ReadOnly})
	return p.run(run), nil
}

// command finds what the process runs.
func (p *process) command(login bool) (command, error) {
	switch {
	case len(p.argv) == 0:
		return shell, nil
	case login && hostScript(p.argv):
		return shell, nil
	case login: // a shell would split, expand and look up the words
		line := strings.Join(p.argv, " ")
		return func(p *process) int { return p.line(line) }, nil
	}
	run, ok := commands[path.Base(p.argv[0])]
	switch {
	case p.argv[0] == "/etc/passwd":
		return nil, guest.NotExecutable(p.argv[0], p.cwd, syscall.EACCES)
	case !ok:
		return nil, guest.CommandNotFound(p.argv[0])
	}
	return run, nil
}

// run runs the command until it ends or a signal ends it.
func (p *process) run(run command) *guestv1.Exit {
	p.s.grant(guest.StdinWindow)
	if p.pipes != nil {
		p.s.grantKeys(guest.KeysWindow)
	}
	go p.s.pump()
	defer close(p.done)
	ended := make(chan int, 1)
	go func() { ended <- run(p) }()
	for {
		select {
		case code := <-ended:
			if code >= signalled {
				return &guestv1.Exit{Signal: int32(code - signalled), Reason: p.reason}
			}
			return &guestv1.Exit{Code: int32(code)}
		case n := <-p.s.signals:
			select {
			case <-p.trapped:
				p.trap <- n
				if n != 1 && n != 9 {
					continue
				}
			default:
			}
			p.s.keys.end(os.ErrClosed)
			p.s.stdin.end(os.ErrClosed) // ends the goroutine of a command that reads
			return &guestv1.Exit{Signal: int32(n)}
		}
	}
}

// frameWriter writes frames of one type.
type frameWriter struct {
	w *guest.Writer
	t guest.FrameType
}

func (w frameWriter) Write(p []byte) (int, error) {
	done := 0
	for len(p) > 0 {
		n := min(len(p), 64<<10)
		if err := w.w.Send(w.t, p[:n]); err != nil {
			return done, err
		}
		done, p = done+n, p[n:]
	}
	return done, nil
}

// line runs one line of the fake shell.
func (p *process) line(line string) int {
	words := strings.Fields(os.Expand(line, p.getenv))
	if len(words) == 0 {
		return 0
	}
	run, ok := commands[words[0]]
	if !ok {
		fmt.Fprintf(p.stderr, "sh: %s: not found\n", words[0])
		return 127
	}
	q := *p
	q.argv = words
	return run(&q)
}

func (p *process) getenv(name string) string {
	for _, e := range slices.Backward(p.env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}
