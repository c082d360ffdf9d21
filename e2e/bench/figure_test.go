package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	if got := (samples{}).summary(); got != (summary{}) {
		t.Errorf("of nothing: %+v", got)
	}
	if got, want := (samples{4, 1, 2, 3}).summary(), (summary{Median: 2.5, Min: 1, Max: 4, N: 4}); got != want {
		t.Errorf("of four: %+v, want %+v", got, want)
	}
	var many samples
	for i := range 101 {
		many = append(many, float64(i))
	}
	if got, want := many.summary(), (summary{Median: 50, P95: 95, Max: 100, N: 101}); got != want {
		t.Errorf("of many: %+v, want %+v", got, want)
	}
}

// The ratio is above 1 where ours is better, whatever the unit.
func TestRatio(t *testing.T) {
	var r report
	for unit, want := range map[string]float64{"ms": 2, "MB/s": 0.5, "% of a core": 2} {
		if f := r.figure("f", unit, samples{10}).beside("peer", samples{20}); f.Ratio != want {
			t.Errorf("10 beside 20 %s: %v, want %v", unit, f.Ratio, want)
		}
	}
	if f := r.figure("f", "ms", samples{1}).beside("peer", nil); f.Peer != nil || f.Ratio != 0 {
		t.Errorf("beside nothing: %+v", f)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "", 0.018: "0.018", 0.1264: "0.126", 1.5: "1.5", 12.34: "12.3", 99.96: "100", 1234.5: "1234", 60: "60"} {
		if got := number(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

func TestParseBenchmarks(t *testing.T) {
	got := parseBenchmarks(`goos: linux
BenchmarkVSock/roundtrip/lsub-2         	       1	 613962389 ns/op	       137.0 µs	      3795 µs-p95
BenchmarkVSock/roundtrip/lsub#01-2      	       1	1850884174 ns/op	       186.8 µs	     10686 µs-p95
BenchmarkVSock/to-host/peer 	       1	30028251718 ns/op	         1.000 stalls
--- FAIL: BenchmarkVSock/to-guest/peer
PASS
`)
	for key, want := range map[string]samples{
		"roundtrip/lsub/µs": {137, 186.8}, "roundtrip/lsub/µs-p95": {3795, 10686}, "to-host/peer/stalls": {1}, "to-guest/peer/MB/s": nil,
	} {
		if have := got[key]; len(have) != len(want) || len(want) > 0 && have[len(have)-1] != want[len(want)-1] {
			t.Errorf("%s: %v, want %v", key, have, want)
		}
	}
}

func TestPrint(t *testing.T) {
	var r report
	r.vsock(map[string]samples{
		"to-host/lsub/MB/s": {100, 200}, "to-host/socketpair/MB/s": {3000}, "to-host/peer/stalls": {1},
	})
	r.Boot = []step{{"boot", 5, 2000}}
	r.Errors = []string{"cold: no VM"}
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{limaLabel, "KVM: not measured yet", "guest to host", "150", "0.05", "it stalls", "boot", "NOT MEASURED: cold: no VM"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &out)
		}
	}
}

// The column for KVM has what a machine with KVM measured, and nothing else.
func TestKVM(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll(filepath.Dir(kvmFile), 0o755); err != nil {
		t.Fatal(err)
	}
	r := report{Machine: machine{CPU: "a CPU", CPUs: 8, Accel: "tcg"}}
	r.figure("boot", "ms", samples{150})
	if err := r.keepKVM(); err == nil {
		t.Error("figures of software emulation are taken for KVM's")
	}
	r.Machine.Accel = "kvm"
	if err := r.keepKVM(); err != nil {
		t.Fatal(err)
	}
	was := kvmJSON
	defer func() { kvmJSON = was }()
	var err error
	if kvmJSON, err = os.ReadFile(kvmFile); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r.print(&out)
	if want := "KVM, measured 0001-01-01 on 8 × a CPU"; !strings.Contains(out.String(), want) {
		t.Errorf("%q is not in:\n%s", want, &out)
	}
	if k, err := readKVM(); err != nil || k.Medians["boot"] != 150 {
		t.Errorf("read back: %+v, %v", k, err)
	}
}
