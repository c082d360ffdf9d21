package kvm

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/lsub/lsub/hint"
)

// process is a QEMU process.
type process struct {
	cmd    *exec.Cmd
	stderr *tail
	done   chan struct{} // closed when it has ended and was reaped
	err    error         // of exec.Cmd.Wait; read it after done
}

// startProcess starts QEMU. files become its file descriptors from 3 on. The caller still
// owns its own copies and closes them.
func startProcess(program string, args []string, files []*os.File, log *slog.Logger) (*process, error) {
	p := &process{stderr: &tail{log: log}, done: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	p.cmd.Stderr = p.stderr
	p.cmd.ExtraFiles = files
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		// Ctrl-C on a terminal is for lsub alone: it decides how the VM ends.
		Setpgid: true,
		// QEMU dies with this process, however this ends.
		Pdeathsig: syscall.SIGKILL,
	}
	started := make(chan error)
	go func() {
		// The kernel sends the signal when the *thread* that forked ends, and Go ends threads
		// at will. So the goroutine keeps its thread locked while QEMU lives, and waits on
		// it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	return p, nil
}

// kill ends QEMU with SIGKILL and waits until it is gone.
func (p *process) kill() {
	p.cmd.Process.Kill() // fails only if the process has ended
	<-p.done
}

// failure returns how the process has ended, and its last output; nil after exit status 0. It
// may be called only after done.
func (p *process) failure() error {
	if p.err == nil {
		return nil
	}
	state := p.cmd.ProcessState
	how, advice := p.err.Error(), ""
	if state != nil {
		ws, ok := state.Sys().(syscall.WaitStatus)
		switch {
		case ok && ws.Signaled():
			how = "was killed by signal " + fmt.Sprintf("%d (%v)", ws.Signal(), ws.Signal())
			advice = "the kernel kills programs when memory is short ('journalctl -k' says so): give the VM less of it, or close other programs"
		case ok && ws.Exited():
			how = fmt.Sprintf("has failed with exit status %d", ws.ExitStatus())
		}
	}
	if why := explain(p.stderr.String()); why != nil {
		return fmt.Errorf("QEMU %s: %w", how, why)
	}
	err := fmt.Errorf("QEMU %s", how)
	if advice != "" {
		err = hint.New(err, advice)
	}
	return err
}

// tailSize is the part of QEMU's stderr that is kept, in bytes.
const tailSize = 8 << 10

// tail keeps the end of what is written to it, and logs it at debug level.
type tail struct {
	log *slog.Logger
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.log.Debug("QEMU says", "stderr", strings.TrimSpace(string(p)))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
