package sshproxy

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
)

// directTCP connects to a port of the distro's localhost (ssh -L, -D, -W).
func (p *proxy) directTCP(_ *ssh.Server, _ *gossh.ServerConn, ch gossh.NewChannel, ctx ssh.Context) {
	var to struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if err := gossh.Unmarshal(ch.ExtraData(), &to); err != nil || to.Port == 0 || to.Port > 65535 {
		ch.Reject(gossh.ConnectionFailed, "the request is broken")
		return
	}
	if !isLocalhost(to.Host) {
		ch.Reject(gossh.Prohibited, "lsub leads to localhost of the distro and no further")
		return
	}
	p.join(ch, ctx, func(ctx context.Context) (net.Conn, error) {
		return p.cfg.Distros.Connect(ctx, p.cfg.Distro, int(to.Port))
	})
}

func isLocalhost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// directSocket connects to a unix socket of the distro.
func (p *proxy) directSocket(_ *ssh.Server, _ *gossh.ServerConn, ch gossh.NewChannel, ctx ssh.Context) {
	var to struct {
		Path     string
		Reserved string
		Unused   uint32
	}
	if err := gossh.Unmarshal(ch.ExtraData(), &to); err != nil {
		ch.Reject(gossh.ConnectionFailed, "the request is broken")
		return
	}
	p.join(ch, ctx, func(ctx context.Context) (net.Conn, error) {
		return p.cfg.Distros.ConnectSocket(ctx, p.cfg.Distro, to.Path)
	})
}

// join connects a channel with what dial reaches.
func (p *proxy) join(ch gossh.NewChannel, ctx ssh.Context, dial func(context.Context) (net.Conn, error)) {
	conn, err := dial(ctx)
	if err != nil {
		ch.Reject(gossh.ConnectionFailed, err.Error())
		return
	}
	c, requests, err := ch.Accept()
	if err != nil {
		conn.Close()
		return
	}
	p.sessions.Go(func() {
		defer conn.Close()
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		go gossh.DiscardRequests(requests)
		var both sync.WaitGroup
		both.Go(func() {
			io.Copy(c, conn)
			c.CloseWrite()
		})
		both.Go(func() {
			io.Copy(conn, c)
			if h, ok := conn.(interface{ CloseWrite() error }); ok {
				h.CloseWrite()
			} else {
				conn.Close()
			}
		})
		both.Wait()
	})
}
