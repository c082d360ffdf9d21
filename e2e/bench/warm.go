package main

import (
	"context"
	"os/exec"
)

const sshPeer = "ssh, same guest, kept connection"

// warm measures a command in a distro that runs, beside ssh into it.
func (b *bench) warm() error {
	guest, err := b.ssh()
	if err != nil {
		return err
	}
	ssh, err := b.main.sshProxy()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.ctx, slow)
	defer cancel()
	commands := []func() *exec.Cmd{
		func() *exec.Cmd { return b.main.command(ctx, "exec", sshDistro, "true") },
		func() *exec.Cmd { return guest.command(ctx, "guest", "true") },
		func() *exec.Cmd { return b.main.command(ctx, "version") },
		func() *exec.Cmd { return ssh.command(ctx, "ssh.lsub", "true") },
	}
	took := make([]samples, len(commands))
	const practice = 3
	for i := range practice + b.times(150, 30) {
		for k, command := range commands {
			d, err := b.timed(command())
			if err != nil {
				return err
			}
			if i >= practice {
				took[k].add(d)
			}
		}
	}
	f := b.report.figure("warm: lsub exec debian true", "ms", took[0]).beside(sshPeer, took[1])
	f.Aim, f.AimP95, f.Lima = 60, 120, 451
	f.Note = "in a Debian with an sshd beside it; Lima's is 'limactl shell p true'; plain ssh over its kept connection took 104 ms there"
	b.report.figure("warm: ssh debian.lsub true, a new connection over lsub ssh-config", "ms", took[3]).beside("lsub exec debian true", took[0])
	f = b.report.figure("of that the host's part: lsub version", "ms", took[2])
	f.Aim = 15
	return nil
}
