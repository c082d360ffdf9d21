package main

import "time"

// idle measures a VM, just booted, with one distro that runs systemd.
func (b *bench) idle() error {
	if err := b.main.debian(); err != nil {
		return err
	}
	if err := b.main.shutdown(); err != nil {
		return err
	}
	if _, err := b.main.lsub("exec", "-u", "root", "debian", "--", "systemctl", "is-system-running", "--wait"); err != nil {
		return err
	}
	p, err := b.main.processes()
	if err != nil {
		return err
	}
	settle, window := 30*time.Second, time.Minute
	if b.quick {
		settle, window = 10*time.Second, 20*time.Second
	}
	if err := b.pause(settle); err != nil {
		return err
	}
	var supervisor, qemu, both samples
	for range b.times(3, 1) {
		s, q, err := b.busy(p, window)
		if err != nil {
			return err
		}
		supervisor, qemu, both = append(supervisor, s), append(qemu, q), append(both, s+q)
	}
	f := b.report.figure("idle: supervisor and QEMU", "% of a core", both)
	f.Aim, f.Lima = 2, 2.5
	b.report.figure("… the supervisor", "% of a core", supervisor)
	b.report.figure("… QEMU", "% of a core", qemu)
	b.report.figure("memory of the supervisor (RSS)", "MiB", samples{memory(p.supervisor, "VmRSS")}).Lima = 60
	f = b.report.figure("memory of QEMU (RSS)", "MiB", samples{memory(p.qemu, "VmRSS")})
	f.Lima = 1584
	f.Note = "the guest's memory is RssShmem, QEMU's own with its translation cache RssAnon"
	b.report.figure("… RssAnon", "MiB", samples{memory(p.qemu, "RssAnon")})
	b.report.figure("… RssShmem", "MiB", samples{memory(p.qemu, "RssShmem")})
	return nil
}

// busy returns which part of a core, in %, the supervisor and QEMU take in a while.
func (b *bench) busy(p *vmProcesses, window time.Duration) (supervisor, qemu float64, err error) {
	var before, after [2]time.Duration
	read := func(to *[2]time.Duration) {
		for i, pid := range []int{p.supervisor, p.qemu} {
			if err == nil {
				to[i], err = processorTime(pid)
			}
		}
	}
	start := time.Now()
	read(&before)
	if err == nil {
		err = b.pause(window)
	}
	took := time.Since(start)
	read(&after)
	share := func(i int) float64 { return 100 * (after[i] - before[i]).Seconds() / took.Seconds() }
	return share(0), share(1), err
}
