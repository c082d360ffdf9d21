//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/internal/testcert"
)

// TestScripts runs testdata/script: one script for each command and each kind
// of trouble, with supervisors that are processes of their own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Setup:               setUpScript,
		Condition:           scriptCondition,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":      scriptStatus,
			"fifo":        scriptFifo,
			"await":       scriptAwait,
			"crash":       scriptCrash,
			"freeze":      scriptFreeze,
			"image":       scriptImage,
			"expand":      scriptExpand,
			"certificate": scriptCertificate,
			"online":      scriptOnline,
			"registry":    scriptRegistry,

			"freeport":   scriptFreePort,
			"eventually": scriptEventually,
			"talk":       scriptTalk,
			"occupy":     scriptOccupy,
		},
	})
}

// scriptCondition tells whether the scripts' directories can hold "unnamed-files".
func scriptCondition(cond string) (bool, error) {
	if cond != "unnamed-files" {
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	return atomicfile.CanHide(os.TempDir()), nil
}

func setUpScript(e *testscript.Env) error {
	runtime, err := os.MkdirTemp("/tmp", "lsub-test-") // a socket's path has to be short
	if err != nil {
		return err
	}
	for key, value := range map[string]string{
		"HOME": e.WorkDir, "LSUB_HOME": filepath.Join(e.WorkDir, "home"), "XDG_CACHE_HOME": filepath.Join(e.WorkDir, "cache"),
		"XDG_RUNTIME_DIR": runtime, "LSUB_PROFILE": "", "LSUB_LOG_LEVEL": "", "LSUBTEST": "", "LSUBTEST_VERSION": "", "LSUBTEST_PULL": "", "LSUBTEST_BOOT": "",
		"LSUBTEST_CATALOGUES": "",
		"PROFILE":             filepath.Join(e.WorkDir, "home", "profiles", "default"), "TERM": "dumb",
		"GORACE": "atexit_sleep_ms=0", // the race detector makes each process end a second late
	} {
		e.Setenv(key, value)
	}
	env := e.Vars
	e.Defer(func() {
		if out, err := shutDown(env); err != nil {
			e.T().Log(string(out))
		}
		os.RemoveAll(runtime)
	})
	return nil
}

// fifo NAME… makes named pipes.
func scriptFifo(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		ts.Check(syscall.Mkfifo(ts.MkAbs(name), 0o600))
	}
}

// await FIFO waits until somebody opens the named pipe to write and closes it;
// that one waits for us in turn.
func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	_, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
}

// crash kills the supervisor, and waits until it is gone.
func scriptCrash(ts *testscript.TestScript, neg bool, args []string) {
	signalSupervisor(ts, syscall.SIGKILL)
	f, err := os.Open(filepath.Join(ts.Getenv("PROFILE"), "supervisor.lock"))
	ts.Check(err)
	defer f.Close()
	ts.Check(syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
}

// freeze stops the supervisor's process.
func scriptFreeze(ts *testscript.TestScript, neg bool, args []string) {
	pid := signalSupervisor(ts, syscall.SIGSTOP)
	// The threads stop one after the other, on a busy machine some time after
	// the signal.
	for stat := fmt.Sprintf("/proc/%d/task/*/stat", pid); ; runtime.Gosched() {
		threads, err := filepath.Glob(stat)
		ts.Check(err)
		if !slices.ContainsFunc(threads, isRunning) {
			return
		}
	}
}

// isRunning tells whether a thread, by its stat file, is not stopped.
func isRunning(stat string) bool {
	b, err := os.ReadFile(stat)
	if err != nil {
		return false // it has ended
	}
	state := b[bytes.LastIndexByte(b, ')')+2:]
	return state[0] != 'T'
}

// signalSupervisor returns the supervisor's process id.
func signalSupervisor(ts *testscript.TestScript, sig syscall.Signal) int {
	b, err := os.ReadFile(filepath.Join(ts.Getenv("PROFILE"), "supervisor.json"))
	ts.Check(err)
	var rec struct {
		PID int `json:"pid"`
	}
	ts.Check(json.Unmarshal(b, &rec))
	ts.Check(syscall.Kill(rec.PID, sig))
	return rec.PID
}

// certificate FILE writes a new certificate.
func scriptCertificate(ts *testscript.TestScript, neg bool, args []string) {
	cert, err := testcert.NewAuthority(args[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), cert, 0o600))
}
