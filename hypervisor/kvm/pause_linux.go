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
	// tells when a file system gets room. The pause grows while the VM halts
	// again and again, as under a quota, where there seems to be room.
	roomPollMin, roomPollMax = 500 * time.Millisecond, 30 * time.Second
)

// pause is what halts a VM: writes that the host has no room for (QEMU's
// werror=enospc). It goes on by itself when there is room again.
type pause struct {
	vm *vm

	mu     sync.Mutex
	err    error         // why it stands still; nil while it runs
	path   string        // the disk
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
	if d, ok := decodeDiskFull(e); ok {
		p.halt(p.vm.diskPath(d.node))
	}
	if e.Event == "RESUME" {
		p.mu.Lock()
		if p.err != nil {
			p.vm.log.Info("the host's disk has room again; the VM goes on", "disk", p.path)
		}
		p.err = nil
		p.mu.Unlock()
	}
}

func (p *pause) halt(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return // several writes of one moment
	}
	p.path = path
	p.err = fmt.Errorf("the host's disk is full: no room left where %s is; the VM waits until there is", path)
	p.vm.log.Warn("the VM is paused", "reason", p.err)
	p.wake()
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

// watch lets the VM go on whenever there is room. It runs for as long as the
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

// awaitRoom returns true once the disk's file system has room, false when the
// VM has ended.
func (p *pause) awaitRoom(delay time.Duration) bool {
	p.mu.Lock()
	dir := filepath.Dir(p.path)
	p.mu.Unlock()
	poll := time.NewTicker(delay)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
		case <-p.vm.alive.Done():
			return false
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
