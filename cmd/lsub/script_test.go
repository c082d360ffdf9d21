//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
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
		cmd := exec.Command("lsub", "shutdown", "--force")
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			e.T().Log(string(out))
		}
		os.RemoveAll(runtime)
	})
	return nil
}

// status N lsub ARGS… runs lsub and wants exit status N.
func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
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

// image FILE [SETUP] writes an archive that may become a distro, with the file
// SETUP as its /etc/wsl-distribution.conf.
func scriptImage(ts *testscript.TestScript, neg bool, args []string) {
	var setup []string
	for _, file := range args[1:] {
		setup = append(setup, ts.ReadFile(file))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), tinyImage(args[0], setup...), 0o600))
}

// expand FROM TO copies a file with the values of the variables in it.
func scriptExpand(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o600))
}

// certificate FILE writes a new certificate.
func scriptCertificate(ts *testscript.TestScript, neg bool, args []string) {
	cert, err := testcert.NewAuthority(args[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), cert, 0o600))
}

// TestHelp holds the help of every command to what fits a screen, and to
// commands that say what they are for.
func TestHelp(t *testing.T) {
	a := &app{}
	for _, c := range a.root().Commands {
		if c.Hidden {
			continue
		}
		if c.Usage == "" || c.UsageText == "" {
			t.Errorf("%s has no usage", c.Name)
		}
		if strings.ToLower(c.Usage[:1]) != c.Usage[:1] {
			t.Errorf("%s: usage starts with a capital: %s", c.Name, c.Usage)
		}
	}
	var out bytes.Buffer
	root := a.root()
	root.Writer = &out
	if err := root.Run([]string{"lsub", "--help"}); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(out.Bytes(), []byte("\n")); n > 50 {
		t.Errorf("the help has %d lines", n)
	}
}
