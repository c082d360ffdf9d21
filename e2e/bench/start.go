package main

import (
	"slices"
	"time"
)

// cold measures "lsub run" with the VM off.
func (b *bench) cold() error {
	if err := b.main.tiny(); err != nil {
		return err
	}
	var took samples
	var traces [][]step
	for range b.times(7, 3) {
		if err := b.main.shutdown(); err != nil {
			return err
		}
		begin := time.Now()
		d, err := b.main.lsub("run", "tiny", "--", "true")
		if err != nil {
			return err
		}
		took.add(d)
		st, err := b.main.status()
		if err != nil {
			return err
		}
		traces = append(traces, trace(begin, d, st))
	}
	f := b.report.figure("cold: VM off, lsub run tiny -- true", "ms", took)
	f.Aim, f.Lima = 6000, 55000
	f.Note = "Lima's is the first shell of a Debian with systemd; see the next figure of ours for that"
	order := make([]int, len(took))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return int(took[i] - took[j]) })
	b.report.Boot = traces[order[len(order)/2]]
	return b.coldSystemd()
}

// coldSystemd measures the same with a distro like the peer's.
func (b *bench) coldSystemd() error {
	if err := b.main.debian(); err != nil {
		return err
	}
	var took samples
	for range b.times(5, 2) {
		if err := b.main.shutdown(); err != nil {
			return err
		}
		d, err := b.main.lsub("run", "debian", "--", "true")
		if err != nil {
			return err
		}
		took.add(d)
	}
	b.report.figure("cold: VM off, lsub run debian -- true", "ms", took).Lima = 55000
	return nil
}

// trace is what a start did: the command until its supervisor ran, the
// supervisor's and the guest's own steps, and the command's way through the VM
// that serves.
func trace(begin time.Time, took time.Duration, st *status) []step {
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	spawned := st.Started.Sub(begin)
	steps := []step{{"lsub starts its supervisor", 0, ms(spawned)}}
	var served time.Duration
	for _, s := range st.Boot {
		steps = append(steps, step{s.Name, ms(spawned + s.Start), ms(s.Duration)})
		served = max(served, spawned+s.Start+s.Duration)
	}
	steps = append(steps, step{"the first command, with its distro's start", ms(served), ms(took - served)})
	slices.SortStableFunc(steps, func(a, b step) int { return int(1000 * (a.Start - b.Start)) })
	return steps
}

// systemd measures the start of a distro with systemd in a VM that runs.
func (b *bench) systemd() error {
	if err := b.main.debian(); err != nil {
		return err
	}
	var first, up samples
	for range b.times(7, 3) {
		if _, err := b.main.lsub("exec", "debian", "--", "true"); err != nil {
			return err
		}
		if _, err := b.main.lsub("stop", "debian"); err != nil {
			return err
		}
		begin := time.Now()
		d, err := b.main.lsub("exec", "debian", "--", "true")
		if err != nil {
			return err
		}
		first.add(d)
		if _, err := b.main.lsub("exec", "-u", "root", "debian", "--", "systemctl", "is-system-running", "--wait"); err != nil {
			return err
		}
		up.add(time.Since(begin))
	}
	b.report.figure("VM on, debian stopped: lsub exec debian true", "ms", first)
	b.report.figure("… and systemctl is-system-running --wait", "ms", up)
	return nil
}
