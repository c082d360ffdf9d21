package kvm

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hypervisor"
)

const (
	// roomToGoOn is the free space that the host's file system needs, in bytes, before a
	// paused VM continues.
	roomToGoOn = 16 << 20
	// While a VM is paused, we poll its file system: there is no event for free space. If
	// space is not the problem, as under a quota, the VM retries its write at the same
	// interval. The interval grows while the VM pauses again and again.
	roomPollMin, roomPollMax = 500 * time.Millisecond, 30 * time.Second
	// settled is how long a VM must run after a retry to count as running.
	settled = time.Second
)

// pause handles writes that the host refuses, which pause the VM (QEMU's werror=stop). The VM
// continues by itself when the host takes the writes.
type pause struct {
	vm *vm

	mu     sync.Mutex
	err    error         // why the VM is paused; nil while it runs
	path   string        // the disk
	full   bool          // its file system has no room
	trial  *time.Timer   // runs while a VM retries its write; nil otherwise
	halted chan struct{} // holds a token when watch has something to do

	hold sync.Mutex // held while QEMU is told to stop or go on; before mu
	held bool       // the VM's owner has paused it; written with both locks
}

func (p *pause) init(v *vm) {
	p.vm = v
	p.halted = make(chan struct{}, 1)
}

// Paused returns why the VM is paused; nil if it runs.
func (v *vm) Paused() error {
	v.pause.mu.Lock()
	defer v.pause.mu.Unlock()
	if v.pause.err == nil && v.pause.held {
		return hypervisor.ErrPaused
	}
	return v.pause.err
}

func (p *pause) onEvent(e qmp.Event) {
	if w, ok := decodeWriteFailure(e); ok {
		p.halt(w)
	}
	if e.Event == "RESUME" {
		p.resume()
	}
}

// halt records why QEMU has paused the VM. Several writes fail at once, and the same one
// again on each retry.
func (p *pause) halt(w writeFailure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	again := p.trial != nil
	if again {
		p.trial.Stop()
		p.trial = nil
		p.wake()
	}
	path := p.vm.diskPath(w.node)
	if p.err != nil && p.path == path && p.full == w.full {
		return
	}
	known := p.err != nil
	p.path, p.full = path, w.full
	if w.full {
		p.err = fmt.Errorf("the host's disk is full: no room left where %s is; the VM waits until there is", path)
	} else {
		p.err = fmt.Errorf("the host does not write to %s: %s; the VM waits and tries again", path, w.reason)
	}
	p.vm.log.Warn("the VM is paused", "reason", p.err)
	if !known {
		p.wake()
	}
}

// resume records that the VM runs again: for good if there is room, otherwise to retry its
// write.
func (p *pause) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.err == nil:
	case p.full:
		p.goOn()
	default:
		var t *time.Timer
		t = time.AfterFunc(settled, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.trial == t {
				p.goOn()
			}
		})
		p.trial = t
	}
}

func (p *pause) goOn() {
	p.vm.log.Info("the host writes again; the VM goes on", "disk", p.path)
	p.err, p.trial = nil, nil
}

// wake wakes watch.
func (p *pause) wake() {
	select {
	case p.halted <- struct{}{}:
	default:
	}
}

// diskPath returns the path of a block node's file.
func (v *vm) diskPath(node string) string {
	n, err := strconv.Atoi(strings.TrimPrefix(node, diskNode(0)[:len(diskNode(0))-1]))
	if err != nil || n < 0 || n >= len(v.cfg.Disks) {
		n = 0
	}
	if len(v.cfg.Disks) == 0 {
		return v.cfg.Dir
	}
	return v.cfg.Disks[n].Path
}

// watch continues a paused VM once there is room, or to retry. It runs as long as the VM
// lives, and is idle while the VM runs.
func (p *pause) watch() {
	delay := roomPollMin
	var resumed time.Time
	for {
		select {
		case <-p.halted:
		case <-p.vm.alive.Done():
			return
		}
		if time.Since(resumed) < 2*delay {
			delay = min(2*delay, roomPollMax)
		} else {
			delay = roomPollMin
		}
		if !p.awaitRoom(delay) {
			return
		}
		resumed = time.Now()
		if err := p.retry(); err != nil && p.vm.alive.Err() == nil {
			p.vm.log.Error("the VM stays paused", "err", err)
			p.wake()
		}
	}
}

// awaitRoom returns true once the disk's file system has room, or after delay if room is not
// the problem. It returns false when the VM has ended.
func (p *pause) awaitRoom(delay time.Duration) bool {
	p.mu.Lock()
	dir, full := filepath.Dir(p.path), p.full
	p.mu.Unlock()
	poll := time.NewTicker(delay)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
		case <-p.vm.alive.Done():
			return false
		}
		if !full {
			return true
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			p.vm.log.Error("the disk's file system cannot be looked at", "err", err)
			continue
		}
		if fs.Bavail*uint64(fs.Bsize) >= roomToGoOn {
			return true
		}
	}
}
