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
)

const (
	// roomToGoOn is how much room the host's file system must have before a VM
	// goes on that it has halted, in bytes.
	roomToGoOn = 16 << 20
	// While a VM is halted its file system is looked at this often: nothing
	// tells when a file system gets room. Where room is not what lacks, as under
	// a quota, the VM tries its write again this often. The pause grows while
	// the VM halts again and again.
	roomPollMin, roomPollMax = 500 * time.Millisecond, 30 * time.Second
	// settled is how long a VM must run after such a try to count as running.
	settled = time.Second
)

// pause is what halts a VM: writes that the host refuses (QEMU's werror=stop).
// It goes on by itself when the host takes them.
type pause struct {
	vm *vm

	mu     sync.Mutex
	err    error         // why it stands still; nil while it runs
	path   string        // the disk
	full   bool          // its file system has no room
	trial  *time.Timer   // of a VM that tries its write again; nil for none
	halted chan struct{} // holds a token when watch has something to do
}

func (p *pause) init(v *vm) {
	p.vm = v
	p.halted = make(chan struct{}, 1)
}

// Paused tells why the VM stands still.
func (v *vm) Paused() error {
	v.pause.mu.Lock()
	defer v.pause.mu.Unlock()
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

// halt notes why QEMU has halted the VM. Several writes fail at one moment, and
// the same one again on each try.
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

// resume notes that the VM goes on: for good where there is room again, else
// to try its write.
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

// wake makes watch look.
func (p *pause) wake() {
	select {
	case p.halted <- struct{}{}:
	default:
	}
}

// diskPath returns the file of a block node.
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

// watch lets the VM go on whenever there is room, or may be. It runs for as long as the
// VM lives, and does nothing while that runs.
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
		if err := p.vm.mon.run(p.vm.alive, "cont", nil); err != nil && p.vm.alive.Err() == nil {
			p.vm.log.Error("the VM stays paused", "err", err)
			p.wake()
		}
	}
}

// awaitRoom returns true once the disk's file system has room, or after delay
// where room is not what lacks; false when the VM has ended.
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
