package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/agent/nsthread"
	"github.com/lsub/lsub/guest/agent/sysctl"
	"github.com/lsub/lsub/guest/guestv1"
)

// sysctlTimeout bounds how long a distro's files may keep its start.
const sysctlTimeout = 10 * time.Second

// readSysctls reads which kernel settings the distro's systemd makes for all distros, while it
// starts.
func (d *distro) readSysctls() {
	ctx, cancel := context.WithTimeout(d.starting, sysctlTimeout)
	defer cancel()
	texts, err := nsthread.Call(ctx, d.currentThread(), func() (texts [][]byte, _ error) {
		for _, name := range sysctl.Files(distrofile.Names) {
			if text, err := distrofile.Read(name); err == nil {
				texts = append(texts, text)
			}
		}
		return texts, nil
	}, func([][]byte) {})
	if err != nil {
		d.a.log.Warn("a distro's kernel settings are not known", "distro", d.spec.Name, "err", err)
		return
	}
	settings := sysctl.Parse(texts)
	for name := range settings {
		if !sysctl.Shared(name, d.spec.Isolated) {
			delete(settings, name)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sysctls = settings
}

// sysctlMaker is a distro that runs, and the kernel settings that it has made.
type sysctlMaker struct {
	id, name  string
	startedAt time.Time
	settings  map[string]string
}

// sysctlMakers returns the distros that run and make kernel settings, in the order of their
// starts.
func (a *Agent) sysctlMakers() (makers []sysctlMaker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, d := range a.distros {
		d.mu.Lock()
		if len(d.sysctls) > 0 && !d.stopping {
			makers = append(makers, sysctlMaker{id, d.title(), d.startedAt, d.sysctls})
		}
		d.mu.Unlock()
	}
	slices.SortFunc(makers, func(x, y sysctlMaker) int { return x.startedAt.Compare(y.startedAt) })
	return makers
}

// overruled returns by the distros' ids which of their kernel settings have another value
// because a distro that started later makes them too.
func overruled(makers []sysctlMaker) map[string][]*guestv1.OverruledSetting {
	last := map[string]sysctlMaker{}
	for _, m := range makers {
		for name := range m.settings {
			last[name] = m
		}
	}
	found := map[string][]*guestv1.OverruledSetting{}
	for _, m := range makers {
		for name, value := range m.settings {
			if by := last[name]; by.settings[name] != value {
				found[m.id] = append(found[m.id], &guestv1.OverruledSetting{Name: name, Value: value, By: by.name, ByValue: by.settings[name]})
			}
		}
		slices.SortFunc(found[m.id], func(x, y *guestv1.OverruledSetting) int { return strings.Compare(x.Name, y.Name) })
	}
	return found
}

// logOverruled logs which settings of other distros the start of this one has overruled.
func (d *distro) logOverruled() {
	makers := d.a.sysctlMakers()
	settings := overruled(makers)
	for _, m := range makers {
		for _, o := range settings[m.id] {
			if o.By == d.title() {
				d.a.log.Warn("a distro has changed a kernel setting that all share", "setting", o.Name,
					"distro", o.By, "value", o.ByValue, "for", m.name, "wants", o.Value)
			}
		}
	}
}
