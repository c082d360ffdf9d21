package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// zeros is a reader without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// bulk measures how fast a command's output comes out of the guest, and its
// input gets in.
func (b *bench) bulk() error {
	guest, err := b.ssh()
	if err != nil {
		return err
	}
	out, in, few := int64(1<<30), int64(256<<20), int64(256<<20)
	if b.quick {
		out, in, few = 256<<20, 64<<20, 64<<20
	}
	if err := b.root(fmt.Sprintf("head -c %d /dev/zero >/root/big; head -c %d /dev/zero >/root/few; sync", out, few)); err != nil {
		return err
	}
	var cold, warm, inside, stdin, sshOut, sshIn samples
	for range b.times(3, 2) {
		if err := b.root("echo 3 >/proc/sys/vm/drop_caches"); err != nil {
			return err
		}
		for _, s := range []*samples{&cold, &warm} {
			if err := s.rate(out)(b.main.lsub("exec", "-u", "root", sshDistro, "--", "cat", "/root/big")); err != nil {
				return err
			}
		}
		if err := inside.rate(out)(b.main.lsub("exec", "-u", "root", sshDistro, "--", "sh", "-c", "cat /root/big | cat >/dev/null")); err != nil {
			return err
		}
		if err := sshOut.rate(few)(b.pipe(guest, nil, "cat /root/few")); err != nil {
			return err
		}
		if err := stdin.rate(in)(b.main.pipe(io.LimitReader(zeros{}, in), "exec", sshDistro, "--", "sh", "-c", "cat >/dev/null")); err != nil {
			return err
		}
		if err := sshIn.rate(few)(b.pipe(guest, io.LimitReader(zeros{}, few), "cat >/dev/null")); err != nil {
			return err
		}
	}
	b.report.figure(fmt.Sprintf("exec stdout: lsub exec debian -- cat, %d MiB from the page cache", out>>20), "MB/s", warm).beside(sshPeer, sshOut)
	b.report.figure("… with the guest's page cache dropped", "MB/s", cold)
	b.report.figure("… the guest's own 'cat FILE | cat'", "MB/s", inside).Note = "for comparison: the bytes go through a pipe from one process of the guest to another, and stay in the guest"
	b.report.figure(fmt.Sprintf("exec stdin: lsub exec debian -- sh -c 'cat >/dev/null', %d MiB", in>>20), "MB/s", stdin).beside(sshPeer, sshIn)
	return b.root("rm /root/big /root/few")
}

// root runs a shell script in the main home's distro for ssh.
func (b *bench) root(script string) error {
	_, err := b.main.lsub("exec", "-u", "root", sshDistro, "--", "sh", "-ec", script)
	return err
}

// pipe runs a command over ssh.
func (b *bench) pipe(g *sshGuest, stdin io.Reader, command string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(b.ctx, slow)
	defer cancel()
	cmd := g.command(ctx, "guest", command)
	cmd.Stdin = stdin
	return b.timed(cmd)
}

// rate returns what adds the rate of size bytes in MB/s.
func (s *samples) rate(size int64) func(time.Duration, error) error {
	return func(d time.Duration, err error) error {
		if err == nil {
			*s = append(*s, float64(size)/1e6/d.Seconds())
		}
		return err
	}
}
