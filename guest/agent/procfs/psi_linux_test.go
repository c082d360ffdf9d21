package procfs

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	at := time.Unix(1e9, 0)
	before := Load{at: at, cpu: pressureTotal("some avg10=1.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")}
	before.busy, before.all = processorTicks("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	after := Load{at: at.Add(2 * time.Second), cpu: pressureTotal("some avg10=1.00 avg60=0.00 avg300=0.00 total=2500000\n"), disk: pressureTotal("")}
	after.busy, after.all = processorTicks("cpu  130 5 90 820 55 2 3 0 7 0\n")
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("", "unpack", after.Since(before))
	if want := "unpack.took=2s unpack.cpus_busy=76% unpack.cpus_wanted=75% unpack.disk_awaited=0%\n"; !strings.HasSuffix(log.String(), want) {
		t.Errorf("got %s, want %s", &log, want)
	}
	if l := LoadNow(); l.all == 0 || l.busy > l.all {
		t.Errorf("of this machine: %+v", l)
	}
	before.Since(before) // of no time at all
}
