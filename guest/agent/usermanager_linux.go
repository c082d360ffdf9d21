package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lsub/lsub/guest/agent/account"
	"github.com/lsub/lsub/guest/agent/distroinit"
	"github.com/lsub/lsub/guest/guestv1"
)

// wantsManager tells whether a command is one of somebody who works in the
// distro, and may use systemctl --user or the session bus: an ordinary user's,
// or root's at a terminal or through a login shell.
func wantsManager(who *account.Account, cmd *guestv1.Exec) bool {
	if who.UID == 0 {
		return cmd.Tty || cmd.Login || len(cmd.Argv) == 0
	}
	return who.UID >= 1000 && who.UID <= 60000
}

// awaitUserManager waits until the user's own systemd runs. Where the distro's is
// not up, it would be long in coming: the command goes without it.
func (d *distro) awaitUserManager(ctx context.Context, who *account.Account) {
	if d.init != distroinit.Systemd || !d.wasReady.Load() {
		return
	}
	d.mu.Lock()
	up, asked := d.users[who.UID]
	if !asked {
		up = make(chan struct{})
		d.users[who.UID] = up
	}
	d.mu.Unlock()
	if !asked {
		go func() {
			defer close(up)
			d.startUserManager(who)
		}()
	}
	select {
	case <-up:
	case <-ctx.Done():
	}
}

// startUserManager asks systemd for it, and waits for systemd's answer.
func (d *distro) startUserManager(who *account.Account) {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	cmd := &guestv1.Exec{Cwd: []byte("/"), Argv: [][]byte{[]byte("systemctl"), []byte("start"),
		fmt.Appendf(nil, "user@%d.service", who.UID), fmt.Appendf(nil, "lsub-session@%d.service", who.UID)}}
	root := account.Root()
	p, err := onNSThread(ctx, d, func() (*process, error) { return d.fork(cmd, root, nil) }, (*process).abandon)
	if err == nil {
		p.stdin.Close()
		stop := context.AfterFunc(ctx, func() { p.proc.Kill() })
		defer stop()
		go io.Copy(io.Discard, p.stdout)
		said, _ := io.ReadAll(io.LimitReader(p.stderr, 4096))
		var st *os.ProcessState
		if st, err = p.proc.Wait(); err == nil && !st.Success() {
			err = fmt.Errorf("%s: %s", st, strings.TrimSpace(string(said)))
		}
		p.close()
	}
	if err != nil {
		d.a.log.Warn("no user manager", "distro", d.spec.Name, "user", who.Name, "err", err)
	}
}
