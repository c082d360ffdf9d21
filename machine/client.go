package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine/supervisorv1"
	"github.com/lsub/lsub/machine/supervisorv1/supervisorv1connect"
)

// What the supervisor says about itself in the head of its answers.
const (
	VersionHeader = "Lsub-Version"
	StateHeader   = "Lsub-State" // "stopping" where it takes no more work
	HintHeader    = "Lsub-Error-Hint"
)

const (
	// answerTimeout is what Config.Patience is by default.
	answerTimeout = 15 * time.Second
	// shutdownTimeout covers the grace that the guest gives its distros.
	shutdownTimeout = 150 * time.Second
)

// ErrNotRunning is what asking a VM that is off ends with.
var ErrNotRunning = errors.New("the VM is not running")

// VersionError says that the supervisor and the command are of two versions.
func VersionError(supervisor, command string) error {
	return hint.New(fmt.Errorf("the VM was started by lsub %s, and this is lsub %s", supervisor, command),
		"'lsub shutdown' stops the distros and ends that VM; the next command starts it afresh")
}

// Dial opens a stream to a vsock port of the guest, and starts the VM first
// where it is off. It makes a Machine a [guest.Dialer].
func (m *Machine) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := m.tunnel(ctx, port)
	if !errors.Is(err, ErrNotRunning) {
		return conn, err
	}
	if err := m.Start(ctx); err != nil {
		return nil, err
	}
	return m.tunnel(ctx, port)
}

// Running dials the guest of a VM that runs already; of one that is off, it
// returns [ErrNotRunning].
func (m *Machine) Running() guest.Dialer { return runningDialer{m} }

type runningDialer struct{ m *Machine }

func (d runningDialer) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	return d.m.tunnel(ctx, port)
}

var (
	_ guest.Dialer = (*Machine)(nil)
	_ guest.Dialer = runningDialer{}
)

// Socket is the path of the supervisor's unix socket, "" where none ever ran.
func (m *Machine) Socket() string {
	if rec := m.Record(); rec != nil {
		return rec.Socket
	}
	return ""
}

// connect connects to the supervisor's socket.
func (m *Machine) connect(ctx context.Context) (socketConn, error) {
	rec := m.Record()
	if rec == nil || !rec.Ended.IsZero() {
		return nil, ErrNotRunning
	}
	conn, err := dialSocket(ctx, rec.Socket)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrNotExist), isRefused(err):
		return nil, ErrNotRunning
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("reach the supervisor: %w", err)
}

// tunnel has the supervisor open a stream to the guest.
func (m *Machine) tunnel(ctx context.Context, port uint32) (_ net.Conn, err error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	conn.SetDeadline(time.Now().Add(m.cfg.Patience))
	if _, err := fmt.Fprintf(conn, "CONNECT guest:%d HTTP/1.1\r\nHost: guest\r\n%s: %s\r\n\r\n", port, VersionHeader, m.cfg.Version); IsCut(err) {
		return nil, ErrNotRunning
	} else if err != nil {
		return nil, tunnelError(ctx, err)
	}
	br := bufio.NewReaderSize(conn, 4<<10)
	for first := true; ; first = false {
		res, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
		if first && IsCut(err) {
			return nil, ErrNotRunning // the supervisor ended before it heard us
		}
		if err != nil {
			return nil, tunnelError(ctx, err)
		}
		if v := res.Header.Get(VersionHeader); v != m.cfg.Version {
			return nil, VersionError(v, m.cfg.Version)
		}
		switch {
		case res.StatusCode == http.StatusProcessing: // the VM is still booting
			m.cfg.Progress("waiting for the VM")
			conn.SetDeadline(time.Now().Add(startTimeout))
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		case res.StatusCode != http.StatusOK:
			return nil, refusal(res)
		}
		if !stop() {
			return nil, ctx.Err()
		}
		conn.SetDeadline(time.Time{})
		m.dialed.Store(time.Now().UnixNano())
		if br.Buffered() > 0 {
			return &tunnelConn{socketConn: conn, r: br}, nil
		}
		return conn, nil
	}
}

// refusal is the error in an answer that opened no tunnel.
func refusal(res *http.Response) error {
	if res.Header.Get(StateHeader) == "stopping" {
		return ErrNotRunning
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	err := errors.New(strings.TrimSpace(string(text)))
	if advice := res.Header.Get(HintHeader); advice != "" {
		return hint.New(err, advice)
	}
	return err
}

// tunnelError says what a tunnel that broke before it stood means.
func tunnelError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSilent()
	}
	return hint.New(fmt.Errorf("the supervisor ended while it was asked: %w", err), "see 'lsub logs'; the next command starts the VM afresh")
}

func errSilent() error {
	return hint.New(errors.New("the supervisor does not answer"), "see 'lsub logs'; 'lsub shutdown --force' ends the VM")
}

// tunnelConn is a tunnel whose first bytes came along with the answer.
type tunnelConn struct {
	socketConn
	r *bufio.Reader
}

func (c *tunnelConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// WriteTo hides the connection's own, which knows nothing of those bytes.
func (c *tunnelConn) WriteTo(w io.Writer) (int64, error) { return c.r.WriteTo(w) }

// supervisor is a client of the Supervisor service. It starts nothing.
func (m *Machine) supervisor() supervisorv1connect.SupervisorClient {
	hc := &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return m.connect(ctx) },
		DisableKeepAlives:  true,
		DisableCompression: true,
	}}
	return supervisorv1connect.NewSupervisorClient(hc, "http://supervisor", guest.ClientOptions())
}

// Status asks the supervisor, of whatever version, what it runs. Where none
// runs, the error is [ErrNotRunning].
func (m *Machine) Status(ctx context.Context) (*supervisorv1.StatusResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.Patience, errSilent())
	defer cancel()
	res, err := m.supervisor().Status(ctx, connect.NewRequest(&supervisorv1.StatusRequest{}))
	if err != nil {
		return nil, callError(ctx, err)
	}
	return res.Msg, nil
}

// StartOptions say how a distro is started, and who hears of it.
type StartOptions struct {
	Env   []string                 // NAME=value, for the distro's services
	Steps string                   // as StartDistroRequest.steps
	Stage func(text string)        // what is being done
	Warn  func(text string)        // what went wrong where the start goes on
	Step  func(*supervisorv1.Step) // what a step does; nil discards
}

// StartDistro starts a distro as the registry and the profile say, and the VM before it
// where that is off. It returns when commands may enter the distro.
func (m *Machine) StartDistro(ctx context.Context, id string, o StartOptions) error {
	err := m.startDistro(ctx, id, o)
	if !errors.Is(err, ErrNotRunning) {
		return err
	}
	if err := m.Start(ctx); err != nil {
		return err
	}
	return m.startDistro(ctx, id, o)
}

// startDistro is StartDistro in a VM that is not off.
func (m *Machine) startDistro(ctx context.Context, id string, o StartOptions) error {
	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(m.cfg.Patience, func() { cancel(errSilent()) })
	defer silent.Stop()
	begin := time.Now()
	req := connect.NewRequest(&supervisorv1.StartDistroRequest{Id: id, Env: o.Env, Timezone: HostTimezone(), Steps: o.Steps})
	req.Header().Set(VersionHeader, m.cfg.Version)
	stream, err := m.supervisor().StartDistro(call, req)
	if err != nil {
		return callError(call, err)
	}
	defer stream.Close()
	heard := false
	for stream.Receive() {
		if !heard {
			m.dialed.Store(begin.UnixNano())
			heard = true
		}
		silent.Reset(startTimeout) // each step is shorter
		switch t := stream.Msg().Tell.(type) {
		case *supervisorv1.StartDistroResponse_Stage:
			o.Stage(t.Stage)
		case *supervisorv1.StartDistroResponse_Warning:
			o.Warn(t.Warning)
		case *supervisorv1.StartDistroResponse_Step:
			if o.Step != nil {
				o.Step(t.Step)
			}
		}
	}
	err = stream.Err()
	switch {
	case err == nil:
		return nil
	case guest.ErrorCode(err) == guestv1.ErrorCode_ERROR_CODE_NOT_RUNNING:
		return ErrNotRunning
	case connect.CodeOf(err) == connect.CodeUnimplemented:
		return VersionError("of another version", m.cfg.Version)
	case heard && call.Err() == nil && IsCut(err):
		return err // [Machine.Explain] knows why
	}
	return callError(call, err)
}

// Ports calls f with what the supervisor forwards between the host and the
// distros: once, or with watch at every change and each second, until ctx is
// done, f fails or the VM ends. Of a VM that is off, it returns [ErrNotRunning].
func (m *Machine) Ports(ctx context.Context, watch bool, f func([]*supervisorv1.Port) error) error {
	call := ctx
	if !watch {
		var cancel context.CancelFunc
		call, cancel = context.WithTimeoutCause(ctx, m.cfg.Patience, errSilent())
		defer cancel()
	}
	stream, err := m.supervisor().Ports(call, connect.NewRequest(&supervisorv1.PortsRequest{Watch: watch}))
	if err != nil {
		return callError(call, err)
	}
	defer stream.Close()
	for stream.Receive() {
		if err := f(stream.Msg().Ports); err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil {
		return callError(call, err)
	}
	return nil
}

// Shutdown ends the VM: its distros are asked first, unless force cuts the
// power. It returns when the supervisor is gone too. Of a VM that is off, it
// returns [ErrNotRunning].
func (m *Machine) Shutdown(ctx context.Context, force bool) error {
	timeout := shutdownTimeout
	if force {
		timeout = m.cfg.Patience
	}
	before := m.Record()
	call, cancel := context.WithTimeoutCause(ctx, timeout, errSilent())
	defer cancel()
	_, err := m.supervisor().Shutdown(call, connect.NewRequest(&supervisorv1.ShutdownRequest{Force: force}))
	switch {
	case err == nil, IsCut(err): // it is gone, or as good as
	case errors.Is(err, ErrNotRunning):
		return ErrNotRunning
	case force && ctx.Err() == nil:
		if err := m.kill(); err != nil {
			return err
		}
	default:
		return callError(call, err)
	}
	return m.awaitEnd(ctx, before)
}

// awaitEnd waits until the supervisor of a record has ended, which is asked to.
func (m *Machine) awaitEnd(ctx context.Context, before *Record) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errSilent())
	defer cancel()
	for {
		l, err := filelock.TryAcquire(m.path("supervisor.lock"))
		switch {
		case err == nil:
			l.Release()
			return nil
		case !errors.Is(err, filelock.ErrLocked):
			return err
		}
		// Another command may have started the next one, which has the lock by now.
		if now := m.Record(); before != nil && now != nil && now.Started.After(before.Started) {
			return nil
		}
		select {
		case <-ctx.Done():
			return callError(ctx, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// kill ends a supervisor that does not listen; the hypervisor dies with it.
func (m *Machine) kill() error {
	l, err := filelock.TryAcquire(m.path("supervisor.lock"))
	if err == nil {
		l.Release()
		return nil // it is gone, and its process number may be another's
	}
	rec := m.Record()
	if rec == nil {
		return errSilent()
	}
	if !isSupervisor(rec.PID, m.cfg.Supervisor) {
		return hint.New(fmt.Errorf("the supervisor does not answer, and process %d is none", rec.PID),
			"see 'lsub logs', and end the process that holds "+m.path("supervisor.lock"))
	}
	p, err := os.FindProcess(rec.PID)
	if err == nil {
		err = p.Kill()
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the supervisor (process %d): %w", rec.PID, err)
	}
	return nil
}

// callError says what a failed call means.
func callError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, ErrNotRunning) || IsCut(err) { // it ended meanwhile
		return ErrNotRunning
	}
	return err
}
