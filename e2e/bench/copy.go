package main

import "fmt"

// copying measures what makes one distro of another: clones, snapshots, going
// back to one, and installs of an image in the VM. It does so with a distro of an
// image's size, and with one that has 1 GiB more, which should not matter.
func (b *bench) copying() error {
	h := b.main
	if err := h.debian(); err != nil {
		return err
	}
	if _, err := h.lsub("clone", "debian", "big"); err != nil {
		return err
	}
	if _, err := h.lsub("exec", "-u", "root", "big", "--", "sh", "-c", "dd if=/dev/urandom of=/root/big bs=1M count=1024 status=none; sync"); err != nil {
		return err
	}
	for _, d := range []struct{ name, about string }{{"debian", "debian"}, {"big", "debian and 1 GiB more"}} {
		if _, err := h.lsub("stop", d.name); err != nil {
			return err
		}
		if err := b.copies(d.name, d.about); err != nil {
			return err
		}
	}
	if _, err := h.lsub("start", "big"); err != nil {
		return err
	}
	if err := b.copies("big", "the same, while it runs"); err != nil {
		return err
	}
	_, err := h.lsub("unregister", "--yes", "big")
	return err
}

// copies measures copies of one distro.
func (b *bench) copies(name, about string) error {
	h := b.main
	var clone, snapshot, drop samples
	for i := range b.times(10, 2) {
		copied, snap := fmt.Sprintf("copy%d", i), fmt.Sprintf("snap%d", i)
		for _, step := range []struct {
			into *samples
			args []string
		}{
			{&clone, []string{"clone", name, copied}},
			{&snapshot, []string{"snapshot", "create", name, snap}},
			{nil, []string{"snapshot", "delete", name, snap}},
			{&drop, []string{"unregister", "--yes", copied}},
		} {
			took, err := h.lsub(step.args...)
			if err != nil {
				return err
			}
			if step.into != nil {
				step.into.add(took)
			}
		}
	}
	b.report.figure("clone of "+about, "ms", clone).Aim = 1000
	b.report.figure("snapshot of "+about, "ms", snapshot).Aim = 1000
	b.report.figure("unregister of such a clone", "ms", drop)
	return nil
}
