// Package ttywait tells when processes wait for the input of a terminal. With it, a terminal
// that several share (programs of the host, and those of a distro) goes to the distro only
// while somebody there waits for keys.
//
// The beginning of a wait is an event: small BPF programs at n_tty_read and n_tty_poll, through
// which each read, poll, select and epoll of a terminal passes, send it. The end has none, so
// it is looked for while somebody waits. docs/adr/0035-a-terminal-on-demand.md says why.
package ttywait

import "time"

const (
	// lookEvery is the time between two looks whether somebody still waits. Two in a row say
	// that nobody does: a program that waits for the next key is away only for a moment.
	lookEvery = 100 * time.Millisecond
	// maxEvents is how many events a terminal may have between two looks.
	maxEvents = 16
)

// waiter is a thread that has begun to wait for a terminal.
type waiter struct{ pid, tid uint32 }

// demand decides whether a terminal is wanted.
type demand struct {
	wanted  bool
	idle    int // looks in a row that have found nobody
	waiters map[waiter]bool
}

// begun notes that w has begun to wait.
func (d *demand) begun(w waiter) (changed bool) {
	if d.waiters == nil {
		d.waiters = map[waiter]bool{}
	}
	if len(d.waiters) < 1024 {
		d.waiters[w] = true
	}
	changed, d.wanted, d.idle = !d.wanted, true, 0
	return changed
}

// looked notes what a look has found: whether a process reads, whether the terminal is as
// plain as at first, or a program has changed its mode to use it, and which threads sleep in
// a poll.
func (d *demand) looked(reads, plain bool, polls func(waiter) bool) (changed bool) {
	if reads || !plain {
		changed, d.wanted, d.idle = !d.wanted, true, 0
		return changed
	}
	if !d.wanted {
		return false
	}
	for w := range d.waiters {
		if polls(w) {
			d.idle = 0
			return false
		}
	}
	if d.idle++; d.idle < 2 {
		return false
	}
	d.wanted, d.idle = false, 0
	clear(d.waiters)
	return true
}
