package shareproc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hypervisor/kvm/vhostfs"
)

// startTimeout bounds the start of the process.
const startTimeout = 20 * time.Second

// Process is the process of a share, as the one that starts it sees it. Its methods are safe
// for concurrent use.
type Process struct {
	cfg Config

	mu       sync.Mutex
	run      *run // nil before the first start
	starts   uint32
	closed   bool
	inflight *os.File // memory of requests in progress, which outlives the process
	queues   int
}

// run is one process.
type run struct {
	cmd     *exec.Cmd
	control *net.UnixConn
	done    chan struct{} // closed when it has ended
}

// New returns a share that no process serves yet.
func New(cfg Config) *Process {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Process{cfg: cfg, queues: 1}
}

// SetQueues sets the number of request queues of a device, before the first Connect.
func (p *Process) SetQueues(n int) { p.queues = n }

// Connect returns a connection to the process, and starts it if it does not run. The error
// says what the process says of the directory.
func (p *Process) Connect(ctx context.Context, carrier Carrier) (*net.UnixConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ensure(ctx); err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	files := []*os.File{theirs}
	if carrier == VhostUser {
		if err := p.openInflight(); err != nil {
			ours.Close()
			return nil, err
		}
		files = append(files, p.inflight)
	}
	if err := send(p.run.control, order{Carrier: carrier, Queues: p.queues}, files...); err != nil {
		ours.Close()
		return nil, fmt.Errorf("share %s: %w", p.cfg.Share.Dir, err)
	}
	return ours, nil
}

// Start starts the process if it does not run. The error says what the process says of the
// directory.
func (p *Process) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ensure(ctx)
}

// ensure starts the process if it does not run. The caller holds the lock.
func (p *Process) ensure(ctx context.Context) error {
	if p.closed {
		return net.ErrClosed
	}
	if p.run != nil && !p.run.ended() {
		return nil
	}
	r, err := p.start(ctx)
	if err == nil {
		p.run = r
	}
	return err
}

// CancelWaits ends the requests that wait for locks.
func (p *Process) CancelWaits() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil && !p.run.ended() {
		_ = send(p.run.control, order{Cancel: true})
	}
}

func (p *Process) openInflight() error {
	if p.inflight != nil {
		return nil
	}
	fd, err := unix.MemfdCreate("inflight", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	p.inflight = os.NewFile(uintptr(fd), "inflight")
	return p.inflight.Truncate(int64(vhostfs.InflightLen(p.queues)))
}

func (r *run) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// start starts the process, and waits until it serves.
func (p *Process) start(ctx context.Context) (*run, error) {
	control, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	r := &run{control: control, done: make(chan struct{})}
	r.cmd = exec.Command(p.cfg.Argv[0], p.cfg.Argv[1:]...)
	r.cmd.ExtraFiles = []*os.File{theirs}
	r.cmd.Stderr = &logWriter{p.cfg.Logger.With("share", p.cfg.Share.Dir)}
	r.cmd.Env = append(os.Environ(), "GOMEMLIMIT=256MiB")
	// Ctrl-C on a terminal is not for it. It ends with its end of the control socket.
	r.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		control.Close()
		return nil, err
	}
	go func() {
		err := r.cmd.Wait()
		control.Close()
		p.cfg.Logger.Debug("the process of a share has ended", "share", p.cfg.Share.Dir, "err", err)
		close(r.done)
	}()
	share := p.cfg.Share
	share.Epoch = p.starts
	p.starts++
	rep, err := r.begin(ctx, &order{Share: &share})
	if err == nil && rep.Error != "" {
		err = errors.New(rep.Error)
	}
	if err != nil {
		r.stop()
		return nil, err
	}
	if rep.Warning != "" {
		p.cfg.Logger.Warn(rep.Warning, "share", p.cfg.Share.Dir)
	}
	return r, nil
}

// begin tells the process what to share, and returns what it says.
func (r *run) begin(ctx context.Context, o *order) (rep report, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { r.control.SetDeadline(time.Unix(1, 0)) })()
	if err := send(r.control, o); err != nil {
		return rep, err
	}
	buf := make([]byte, 8<<10)
	n, err := r.control.Read(buf)
	if err == nil {
		err = json.Unmarshal(buf[:n], &rep)
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return rep, fmt.Errorf("its process does not start: %w", err)
	}
	return rep, nil
}

// stop ends the process, and waits for its end.
func (r *run) stop() {
	r.control.Close()
	select {
	case <-r.done:
	case <-time.After(time.Second):
		r.cmd.Process.Kill()
		<-r.done
	}
}

// PID returns the number of the process that serves now, 0 for none.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil || p.run.ended() {
		return 0
	}
	return p.run.cmd.Process.Pid
}

// Close ends the process. Its connections end with it.
func (p *Process) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.run != nil {
		p.run.stop()
	}
	if p.inflight != nil {
		p.inflight.Close()
		p.inflight = nil
	}
	return nil
}

// send sends an order with descriptors.
func send(control *net.UnixConn, o any, files ...*os.File) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = control.WriteMsgUnix(b, oob, nil)
	return err
}

// socketPair returns our end, and one for another process.
func socketPair(kind int) (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "share")
	ours := os.NewFile(uintptr(fds[0]), "share")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// logWriter logs what the process writes.
type logWriter struct{ log *slog.Logger }

func (w *logWriter) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		w.log.Info("the process of a share says", "line", strings.TrimSpace(line))
	}
	return len(p), nil
}
