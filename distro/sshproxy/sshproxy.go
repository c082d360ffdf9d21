// Package sshproxy is an SSH server for one connection, which an SSH client has with it over
// the pipes of a ProxyCommand. Its sessions are commands in a distro:
//
//	key, err := sshproxy.HostKey(ctx, dir)
//	sshproxy.Serve(ctx, conn, sshproxy.Config{Distros: service, Distro: d, Key: key})
//
// No sshd runs and no port is open. There is no password and no key of the user either: who
// can start the proxy as the user has the supervisor's socket, and with it the distro. The
// client checks the server's key as ever; [HostKey] makes and keeps it.
package sshproxy

import (
	"context"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/printable"
)

// DefaultUser is the name by which a client asks for the distro's default user.
const DefaultUser = "default"

// exitFailed is the status of a session that lsub could not start.
const exitFailed = 255 // as ssh has it for its own errors

// Config says what a connection leads to.
type Config struct {
	Distros *distro.Service
	Distro  *machine.Distro
	Key     gossh.Signer
}

// Serve serves one connection until it ends, or ctx does. Commands that run then are hung up.
func Serve(ctx context.Context, conn net.Conn, cfg Config) {
	p := &proxy{cfg: cfg, ctx: ctx}
	server := &ssh.Server{
		Version:     "lsub",
		HostSigners: []ssh.Signer{cfg.Key},
		Handler:     p.session,
		PtyCallback: func(ssh.Context, ssh.Pty) bool { return true },
		SubsystemHandlers: map[string]ssh.SubsystemHandler{
			"sftp": func(s ssh.Session) { p.run(s, distro.Command{Argv: []string{distro.Tool, "sftp"}}) },
		},
		ChannelHandlers: map[string]ssh.ChannelHandler{
			"session":                        ssh.DefaultSessionHandler,
			"direct-tcpip":                   p.directTCP,
			"direct-streamlocal@openssh.com": p.directSocket,
		},
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	server.HandleConn(conn)
	p.sessions.Wait()
}

type proxy struct {
	cfg      Config
	ctx      context.Context
	sessions sync.WaitGroup
}

// session runs a command through the login shell, as sshd does, or that shell.
func (p *proxy) session(s ssh.Session) {
	c := distro.Command{LoginShell: true}
	if line := s.RawCommand(); line != "" {
		c.Argv = []string{line}
	}
	p.run(s, c)
}

// run runs a session's command.
func (p *proxy) run(s ssh.Session, c distro.Command) {
	p.sessions.Add(1)
	defer p.sessions.Done()
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	stop := context.AfterFunc(s.Context(), cancel)
	defer stop()
	if s.User() != DefaultUser {
		c.User = s.User()
	}
	c.Env = s.Environ()
	c.Stdin, c.Stdout, c.Stderr = s, s, s.Stderr()
	signals := make(chan int, 8)
	c.Signals = signals
	asked := make(chan ssh.Signal, 8)
	s.Signals(asked)
	if pty, sizes, ok := s.Pty(); ok {
		c.Env = append(slices.Clone(c.Env), "TERM="+pty.Term)
		c.Terminal = terminal(ctx, pty, sizes)
	}
	var passing sync.WaitGroup
	passing.Go(func() { passSignals(ctx, asked, signals) })
	exit, err := p.cfg.Distros.Exec(ctx, p.cfg.Distro, c)
	cancel()
	passing.Wait()
	s.Signals(nil)
	if err != nil {
		io.WriteString(s.Stderr(), "lsub: error: "+printable.Line(err.Error())+"\r\n")
		if advice := hint.Of(err); advice != "" {
			io.WriteString(s.Stderr(), "lsub: hint: "+printable.Line(advice)+"\r\n")
		}
		s.Exit(exitFailed)
		return
	}
	s.Exit(exit.Status())
}

// terminal is the client's, as a command has it.
func terminal(ctx context.Context, pty ssh.Pty, sizes <-chan ssh.Window) *distro.Terminal {
	size := func(w ssh.Window) guest.Size {
		return guest.Size{Rows: dimension(w.Height, 24), Cols: dimension(w.Width, 80)}
	}
	resize := make(chan guest.Size, 1)
	go func() {
		for w := range sizes { // closed with the session
			select {
			case resize <- size(w):
			case <-ctx.Done():
				return
			}
		}
	}()
	return &distro.Terminal{Size: func() guest.Size { return size(pty.Window) }, Resize: resize}
}

// dimension is n, or usual where the client does not know.
func dimension(n, usual int) uint16 {
	if n <= 0 || n > 10000 {
		n = usual
	}
	return uint16(n)
}

// numbers are Linux's of the signals that SSH knows.
var numbers = map[ssh.Signal]int{
	ssh.SIGABRT: 6, ssh.SIGALRM: 14, ssh.SIGFPE: 8, ssh.SIGHUP: 1, ssh.SIGILL: 4, ssh.SIGINT: 2, ssh.SIGKILL: 9,
	ssh.SIGPIPE: 13, ssh.SIGQUIT: 3, ssh.SIGSEGV: 11, ssh.SIGTERM: 15, ssh.SIGUSR1: 10, ssh.SIGUSR2: 12,
}

func passSignals(ctx context.Context, asked <-chan ssh.Signal, signals chan<- int) {
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-asked:
			if n := numbers[name]; n != 0 {
				select {
				case signals <- n:
				case <-ctx.Done():
					return
				}
			}
		}
	}
}
