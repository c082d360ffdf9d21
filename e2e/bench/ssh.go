package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// sshDistro is the distro of a home that has an sshd beside what "debian" has.
const sshDistro = "ssh"

// sshGuest is the distro "ssh" of a home, as OpenSSH reaches it over a
// connection that is kept. The connection goes through lsub exec, to an sshd
// that serves it alone (sshd -i): through the same vsock as ours, and so
// faster than through a forwarded port.
type sshGuest struct {
	h      *home
	config string
}

const prepareSSH = `umask 077
mkdir -p /root/.ssh /run/sshd
cat >/root/.ssh/authorized_keys`

// ssh returns the main home's distro for ssh, and keeps the connection until
// the VM or the benchmark ends.
func (b *bench) ssh() (*sshGuest, error) {
	if b.guest != nil {
		if b.guest.run("-O", "check", "guest") == nil {
			return b.guest, nil
		}
		b.guest = nil // the VM has been off since
	}
	var err error
	b.guest, err = b.main.ssh()
	return b.guest, err
}

// ssh connects to the home's distro for ssh. The caller closes the connection.
func (h *home) ssh() (*sshGuest, error) {
	b := h.b
	if !h.has(sshDistro) {
		if _, err := h.lsub("install", "debian?include=openssh-server", "--name", sshDistro); err != nil {
			return nil, err
		}
	}
	key := filepath.Join(b.dir, "key")
	if _, err := os.Stat(key); err != nil {
		if _, err := b.timed(exec.CommandContext(b.ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)); err != nil {
			return nil, err
		}
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		return nil, err
	}
	if _, err := h.pipe(bytes.NewReader(public), "exec", "-u", "root", sshDistro, "--", "sh", "-ec", prepareSSH); err != nil {
		return nil, err
	}
	name := "ssh-" + filepath.Base(h.dir)
	g := &sshGuest{h: h, config: filepath.Join(b.dir, name+"_config")}
	lines := []string{
		"Host guest", "User root", "IdentityFile " + key, "IdentitiesOnly yes", "BatchMode yes", "LogLevel ERROR",
		"StrictHostKeyChecking no", "UserKnownHostsFile /dev/null", "ControlPath " + filepath.Join(b.dir, name),
		fmt.Sprintf("ProxyCommand %s exec -u root %s -- /usr/sbin/sshd -i", h.bin, sshDistro),
	}
	if err := os.WriteFile(g.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	// Returns once the connection stands, which a process in the background keeps.
	if err := g.run("-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-E", filepath.Join(b.dir, "ssh.log"), "guest", "true"); err != nil {
		return nil, errors.Join(err, errors.New(content(filepath.Join(b.dir, "ssh.log"))))
	}
	return g, nil
}

// sshProxy is the distro for ssh as 'lsub ssh-config' has it.
func (h *home) sshProxy() (*sshGuest, error) {
	config, err := h.output("ssh-config", sshDistro)
	if err != nil {
		return nil, err
	}
	g := &sshGuest{h: h, config: filepath.Join(h.b.dir, "proxy_config")}
	return g, os.WriteFile(g.config, []byte(config+"\n"), 0o600)
}

// command is ssh with our configuration.
func (g *sshGuest) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ssh", append([]string{"-F", g.config}, args...)...)
	cmd.Env = g.h.env // for the ProxyCommand
	return cmd
}

func (g *sshGuest) run(args ...string) error {
	ctx, cancel := context.WithTimeout(g.h.b.ctx, slow)
	defer cancel()
	_, err := g.h.b.timed(g.command(ctx, args...))
	return err
}

// close ends the connection. It works after the benchmark's context has ended.
func (g *sshGuest) close() {
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	g.h.b.timed(g.command(ctx, "-O", "exit", "guest"))
}
