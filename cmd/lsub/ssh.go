package main

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro/sshproxy"
	"github.com/lsub/lsub/machine"
)

// sshDir is where the key of the SSH server is kept.
func (a *app) sshDir() string { return filepath.Join(a.machine.Dir(), "ssh") }

func (a *app) sshConfigCommand() *cli.Command {
	return &cli.Command{
		Name: "ssh-config", Usage: "print what ssh needs to reach distros", UsageText: "lsub ssh-config [DISTRO…]",
		Description: "'lsub ssh-config >>~/.ssh/config' lets ssh, scp, sftp, rsync and editors reach a distro as DISTRO.lsub. " +
			"No sshd has to be in the distro, and no port is open. The user 'default' is the distro's default user.",
		Action: func(c *cli.Context) error {
			var list []*machine.Distro
			for _, name := range c.Args().Slice() {
				d, err := a.named(name)
				if err != nil {
					return err
				}
				list = append(list, d)
			}
			if c.NArg() == 0 {
				reg, err := a.machine.Registry()
				if err != nil {
					return err
				}
				for i := range reg.Distros {
					list = append(list, &reg.Distros[i])
				}
			}
			if _, err := sshproxy.HostKey(c.Context, a.sshDir()); err != nil {
				return err
			}
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			profile, suffix := cmp.Or(c.String("profile"), "default"), ".lsub"
			if profile != "default" {
				suffix = "." + profile + suffix
			}
			for i, d := range list {
				if i > 0 {
					fmt.Fprintln(a.stdout)
				}
				proxy := []string{exe, "--home=" + a.paths.Home, "--profile=" + profile, "ssh-proxy", d.Name}
				io.WriteString(a.stdout, sshproxy.HostBlock(d.Name+suffix, a.sshDir(), proxy))
			}
			return nil
		},
	}
}

func (a *app) sshProxyCommand() *cli.Command {
	return &cli.Command{
		Name: "ssh-proxy", Usage: "serve SSH on stdin and stdout, for ssh's ProxyCommand", UsageText: "lsub ssh-proxy DISTRO", Hidden: true,
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return badUsage("lsub ssh-proxy", "ssh-proxy needs a distro")
			}
			d, err := a.named(c.Args().First())
			if err != nil {
				return err
			}
			key, err := sshproxy.HostKey(c.Context, a.sshDir())
			if err != nil {
				return err
			}
			// Its end is often a SIGHUP of the client's, and no failure.
			sshproxy.Serve(c.Context, &stdioConn{in: a.stdin, out: a.stdout}, sshproxy.Config{Distros: a.distros, Distro: d, Key: key})
			return nil
		},
	}
}

// stdioConn is a connection over stdin and stdout.
type stdioConn struct {
	in  *os.File
	out io.Writer
}

func (c *stdioConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *stdioConn) Write(p []byte) (int, error) { return c.out.Write(p) }

func (c *stdioConn) Close() error {
	if out, ok := c.out.(*os.File); ok {
		out.Close()
	}
	return c.in.Close()
}

func (c *stdioConn) LocalAddr() net.Addr              { return pipeAddr{} }
func (c *stdioConn) RemoteAddr() net.Addr             { return pipeAddr{} }
func (c *stdioConn) SetDeadline(time.Time) error      { return nil } // the client's end ends it
func (c *stdioConn) SetReadDeadline(time.Time) error  { return nil }
func (c *stdioConn) SetWriteDeadline(time.Time) error { return nil }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "ssh" }
