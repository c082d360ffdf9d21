package machine

import (
	"os"
	"strings"
	"testing"

	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/hint"
)

// TestKillStranger has a record that names a process which is no supervisor's.
func TestKillStranger(t *testing.T) {
	m, _ := openTest(t)
	m.cfg.Supervisor = []string{"/usr/bin/lsub", "supervise"}
	l, err := filelock.TryAcquire(m.path("supervisor.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if err := m.WriteRecord(&Record{Lsub: "1.0", PID: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	if err := m.kill(); err == nil || hint.Of(err) == "" { // else the test ends here
		t.Errorf("kill = %v", err)
	}
}

func TestRunsSupervisor(t *testing.T) {
	ours := []string{"/usr/bin/lsub", "--profile=a", "--log-level=INFO", "supervise", "--home=/h", "--runtime=/r"}
	for line, want := range map[string]bool{
		"/usr/bin/lsub --profile=a --log-level=DEBUG supervise --home=/h --runtime=/other --ready-fd=3": true,
		"/old/lsub --profile=a supervise --home=/h":                                                     true,
		"/usr/bin/lsub --profile=b supervise --home=/h":                                                 false,
		"/usr/bin/lsub --profile=a supervise --home=/i":                                                 false,
		"/usr/bin/vi --profile=a supervise --home=/h":                                                   false,
		"": false,
	} {
		if got := runsSupervisor(strings.Fields(line), ours); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}

// TestKillProcessOne has a record whose process number is another's by now.
func TestKillProcessOne(t *testing.T) {
	m, _ := openTest(t)
	if err := m.WriteRecord(&Record{Lsub: "1.0", PID: 1}); err != nil {
		t.Fatal(err)
	}
	if err := m.kill(); err != nil {
		t.Error(err)
	}
}
