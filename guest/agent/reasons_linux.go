package agent

import (
	"fmt"
	"iter"
	"slices"

	"github.com/lsub/lsub/guest/agent/cgroup"
	"github.com/lsub/lsub/guest/agent/listeners"
)

// reasons returns what keeps the distro up, in words for people: nothing where it is
// idle.
func (d *distro) reasons() []string {
	var why []string
	d.mu.Lock()
	sessions, forwards := d.sessions, d.forwards
	d.mu.Unlock()
	forwards += d.fastPathClients()
	switch {
	case sessions == 1:
		why = append(why, "a command runs")
	case sessions > 1:
		why = append(why, fmt.Sprintf("%d commands run", sessions))
	}
	if forwards > 0 {
		why = append(why, fmt.Sprintf("connections from the host: %d", forwards))
	}
	for group, what := range d.occupants() {
		if group != cgroup.SessionsGroup || sessions == 0 { // said already
			why = append(why, what)
		}
	}
	slices.Sort(why)
	return slices.Compact(why)
}

// occupants yields what in the distro keeps it up, in words for people, each with its
// control group, "" where that is unknown. Each further one takes a further look.
func (d *distro) occupants() iter.Seq2[string, string] {
	return func(yield func(group, what string) bool) {
		for group, what := range d.group.Occupants(d.pid) {
			if !yield(group, what) {
				return
			}
		}
		for _, what := range d.listens() {
			if !yield("", what) {
				return
			}
		}
	}
}

// listens returns the ports that the distro's processes listen on, in words for people,
// without those of its base services.
func (d *distro) listens() []string {
	var namespaces []*listeners.Netns
	if s := d.ownNetns(); s != nil {
		namespaces = append(namespaces, s.listeners)
	}
	all, err := d.a.listening(namespaces)
	if err != nil {
		d.a.log.Warn("listening ports are not known", "err", err)
		return []string{"its ports are not known"}
	}
	var why []string
	for _, l := range all {
		if l.Distro == d.spec.Id && cgroup.ListenerCounts(l.Group) {
			why = append(why, "listens on "+l.String())
		}
	}
	return why
}
