package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lsub/lsub/guest/agent/network"
	"github.com/lsub/lsub/guest/agent/procfs"
)

// repairPause is the time between two repairs of the VM's card, so that the agent and a
// program that does not give up do not keep the processors busy.
const repairPause = 2 * time.Second

// networkManagers are programs that set up network cards, by the names of their processes,
// which the kernel cuts off at 15 characters.
var networkManagers = []string{
	"connmand", "dhclient", "dhcpcd", "ifup", "ip", "iwd", "NetworkManager", "netplan", "systemd-network", "udhcpc",
	"wicked", "wickedd",
}

// WatchCard puts the VM's card back into order when a program of a distro has changed it, for
// all distros share it. It returns when ctx is done, or when nobody tells of changes.
func (a *Agent) WatchCard(ctx context.Context) error {
	if !a.cfg.Network.Address.IsValid() {
		return nil
	}
	changes := make(chan []uint32, 16)
	go a.repairCard(ctx, changes)
	return a.cfg.Network.Watch(ctx, func(by []uint32) {
		select {
		case changes <- by:
		default: // it is being looked at anyway
		}
	})
}

// repairCard looks at the card after each change.
func (a *Agent) repairCard(ctx context.Context, changes <-chan []uint32) {
	for {
		var by []uint32
		select {
		case <-ctx.Done():
			return
		case by = <-changes:
		}
		lacked, err := a.cfg.Network.Repair()
		if len(lacked) > 0 || err != nil {
			who := a.blame(by, lacked)
			a.log.Warn("a program has changed the card that all distros share; it is put back", "card", network.Card,
				"why", strings.Join(lacked, ", "), "by", who, "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(repairPause):
			}
		}
	}
}

// blame finds the programs that may have changed the card, and warns the users of their
// distros. by has process numbers as the distros count them; a program that has ended, or that
// uses another interface of the kernel, is in none of them.
func (a *Agent) blame(by []uint32, lacked []string) (who []string) {
	type suspect struct {
		d    *distro
		name string
	}
	var suspects, sure []suspect
	for _, d := range a.allRunning() {
		if d.spec.Isolated {
			continue
		}
		for _, pid := range d.group.Processes() {
			s := suspect{d, procfs.Name(pid)}
			if !slices.Contains(networkManagers, s.name) || slices.Contains(suspects, s) {
				continue
			}
			suspects = append(suspects, s)
			if slices.Contains(by, uint32(procfs.InnerPID(pid))) {
				sure = append(sure, s)
			}
		}
	}
	if len(sure) > 0 {
		suspects = sure
	}
	for _, s := range suspects {
		who = append(who, s.name+" in "+s.d.title())
		s.d.warn(fmt.Sprintf("%s may have changed %s, which all distros share (%s); lsub has put it back. "+
			"Have it leave %[2]s alone, or give this distro a network of its own", s.name, network.Card, strings.Join(lacked, ", ")))
	}
	return who
}

// warn keeps a warning for whoever uses the distro next.
func (d *distro) warn(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.warnings, text) {
		d.warnings = append(d.warnings, text)
	}
}

// allRunning returns the distros that commands may enter.
func (a *Agent) allRunning() (running []*distro) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.distros {
		select {
		case <-d.ready:
			if d.err == nil && !d.isStopping() {
				running = append(running, d)
			}
		default:
		}
	}
	return running
}
