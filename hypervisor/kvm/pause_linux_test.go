package kvm

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/digitalocean/go-qemu/qmp"

	"github.com/lsub/lsub/hypervisor"
)

// TestPauseQuota makes writes fail for a reason other than free space.
func TestPauseQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVM(&hypervisor.Config{Disks: []hypervisor.Disk{{Path: "/a"}, {Path: "/b"}}}, slog.New(slog.DiscardHandler))
		refused := qmp.Event{Event: "BLOCK_IO_ERROR", Data: map[string]any{
			"node-name": "disk1", "action": "stop", "nospace": false, "reason": "Disk quota exceeded",
		}}
		woken := func() bool {
			select {
			case <-v.pause.halted:
				return true
			default:
				return false
			}
		}
		for try := range 3 {
			v.pause.onEvent(refused)
			v.pause.onEvent(refused) // a write that failed at the same time
			if !woken() || woken() {
				t.Errorf("try %d: watch is not woken once", try)
			}
			err := v.Paused()
			if err == nil || !strings.Contains(err.Error(), "/b: disk quota exceeded") {
				t.Errorf("try %d: Paused = %v", try, err)
			}
			v.pause.onEvent(qmp.Event{Event: "RESUME"})
			if v.Paused() == nil {
				t.Errorf("try %d: a try is no going on", try)
			}
		}
		time.Sleep(2 * settled)
		synctest.Wait()
		if err := v.Paused(); err != nil {
			t.Errorf("Paused = %v", err)
		}
		if woken() {
			t.Error("watch is woken while the VM runs")
		}
	})
}
