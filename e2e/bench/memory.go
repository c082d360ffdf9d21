package main

import (
	"fmt"
	"time"
)

// memoryCounts are the numbers of distros with which memory is measured.
var memoryCounts = []int{1, 5, 10}

// memory measures what distros that do nothing take of the host's memory, and
// of the VM's: without and with systemd.
func (b *bench) memory() error {
	for _, kind := range []struct {
		name    string
		install func(h *home, name string) error
		up      []string // run in each distro, until it does nothing more
	}{
		{"tiny", (*home).installTiny, []string{"true"}},
		{"systemd", (*home).installDebian, []string{"systemctl", "is-system-running", "--wait"}},
	} {
		h, err := b.newHome("memory-" + kind.name)
		if err != nil {
			return err
		}
		most := memoryCounts[len(memoryCounts)-1]
		for i := range most {
			name := fmt.Sprintf("m%d", i)
			if err := kind.install(h, name); err != nil {
				return err
			}
			if _, err := h.lsub("manage", "--idle", "never", name); err != nil {
				return err
			}
		}
		// What the installs have read and written is no distro's.
		if err := h.shutdown(); err != nil {
			return err
		}
		if err := b.memoryOf(h, kind.name, kind.up); err != nil {
			return err
		}
		if err := h.shutdown(); err != nil {
			return err
		}
	}
	return nil
}

// memoryOf starts the distros of a home bit by bit.
func (b *bench) memoryOf(h *home, kind string, up []string) error {
	settle := 20 * time.Second
	if b.quick {
		settle = 5 * time.Second
	}
	var host, guest []float64 // MiB, for each of memoryCounts
	started := 0
	for _, n := range memoryCounts {
		for ; started < n; started++ {
			args := append([]string{"exec", "-u", "root", fmt.Sprintf("m%d", started), "--"}, up...)
			if _, err := h.lsub(args...); err != nil {
				return err
			}
		}
		if err := b.pause(settle); err != nil {
			return err
		}
		p, err := h.processes()
		if err != nil {
			return err
		}
		st, err := h.status()
		if err != nil {
			return err
		}
		host, guest = append(host, memory(p.qemu, "VmRSS")), append(guest, float64(st.Memory.Used)/(1<<20))
		f := b.report.figure(fmt.Sprintf("memory of QEMU (RSS), %d idle %s distros", n, kind), "MiB", samples{host[len(host)-1]})
		f.Note = fmt.Sprintf("the guest uses %.0f MiB, without what it keeps of files", guest[len(guest)-1])
	}
	last := len(memoryCounts) - 1
	further := float64(memoryCounts[last] - memoryCounts[0])
	b.report.figure("… for each further one, on the host", "MiB", samples{(host[last] - host[0]) / further})
	b.report.figure("… for each further one, in the guest", "MiB", samples{(guest[last] - guest[0]) / further})
	return nil
}

func (h *home) installTiny(name string) error {
	file, err := h.b.tinyRoot()
	if err == nil {
		_, err = h.lsub("install", "--name", name, "--from-file", file)
	}
	return err
}

func (h *home) installDebian(name string) error {
	_, err := h.lsub("install", "--name", name, "debian")
	return err
}
