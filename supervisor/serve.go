package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
	"github.com/lsub/lsub/machine/supervisorv1/supervisorv1connect"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/guest/guestv1/guestv1connect"
	"github.com/lsub/lsub/hint"
)

const (
	// dialTimeout bounds a dial to a guest that serves.
	dialTimeout = 10 * time.Second
	// poweroffTimeout is how long the guest may take to stop its distros: it
	// asks them for 30 s and then kills them, all at once.
	poweroffTimeout = 90 * time.Second
	// answerTimeout bounds a question to the guest that it answers at once.
	answerTimeout = 15 * time.Second
	// hangUpTimeout is how long the VM may take to be gone once the guest has hung up.
	hangUpTimeout = 5 * time.Second
	// offTimeout is how long the VM may take to be gone once the guest has
	// answered: it flushes its disk.
	offTimeout = 30 * time.Second
)

// guestPath begins the paths of calls that are relayed to the guest.
const guestPath = "/" + guestv1connect.GuestName + "/"

// streamHost is where tunnels of streams go: commands, imports, exports.
var streamHost = fmt.Sprintf("guest:%d", guest.StreamPort)

// handler serves the profile's socket.
func (s *supervisor) handler() http.Handler {
	relay := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "guest"
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return s.dial(ctx, guest.ControlPort)
			},
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { s.refuse(w, err) },
	}
	mux := http.NewServeMux()
	mux.Handle(supervisorv1connect.NewSupervisorHandler(s.service(), guest.ServerOptions()))
	mux.Handle(guestPath, relay)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(machine.VersionHeader, s.Version)
		if r.Method == http.MethodConnect {
			defer s.usage.begin(r.Host == streamHost)()
			s.connectGuest(w, r)
			return
		}
		if strings.HasPrefix(r.URL.Path, guestPath) {
			defer s.usage.begin(false)()
		}
		mux.ServeHTTP(w, r)
	})
}

// connectGuest answers "CONNECT guest:PORT" with a tunnel.
func (s *supervisor) connectGuest(w http.ResponseWriter, r *http.Request) {
	host, portText, _ := strings.Cut(r.Host, ":")
	port, err := strconv.ParseUint(portText, 10, 32)
	if host != "guest" || err != nil {
		http.Error(w, fmt.Sprintf("tunnels go to guest:PORT, not to %q", r.Host), http.StatusBadRequest)
		return
	}
	if v := r.Header.Get(machine.VersionHeader); v != "" && v != s.Version {
		http.Error(w, "another version", http.StatusPreconditionFailed)
		return
	}
	select {
	case <-s.life.after(running):
	default:
		w.WriteHeader(http.StatusProcessing) // so that the caller knows whom it waits for
	}
	up, err := s.dial(r.Context(), uint32(port))
	if err != nil {
		s.refuse(w, err)
		return
	}
	down, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		up.Close()
		s.log.Error("no tunnel", "err", err)
		return
	}
	down.SetDeadline(time.Time{})
	head, _ := buf.Peek(buf.Reader.Buffered()) // what the server has read ahead
	if _, err := fmt.Fprintf(down, "HTTP/1.1 200 OK\r\n%s: %s\r\n\r\n", machine.VersionHeader, s.Version); err != nil {
		up.Close()
		down.Close()
		return
	}
	s.tunnels.run(down, head, up)
}

// errStopping is what a supervisor answers that takes no more work.
var errStopping = errors.New("the VM is shutting down")

// dial opens a stream to the guest, as soon as it serves.
func (s *supervisor) dial(ctx context.Context, port uint32) (net.Conn, error) {
	select {
	case <-s.life.after(running):
		if s.err != nil {
			return nil, errStopping // the next start is another one's, and may go better
		}
	default:
	}
	select {
	case <-s.life.after(running):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.err != nil {
		return nil, s.err
	}
	if s.life.isStopping() {
		return nil, errStopping
	}
	if err := s.paused(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := s.vm.Dial(ctx, port)
	switch {
	case err == nil:
		return conn, nil
	case s.paused() != nil:
		return nil, s.paused()
	case errors.Is(err, net.ErrClosed):
		select { // so that whoever hears of it and asks again hears of the end
		case <-s.life.after(gone):
		case <-ctx.Done():
		}
		return nil, errStopping
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return nil, hint.New(errors.New("the VM does not answer"), "see 'lsub logs'; 'lsub shutdown --force' ends the VM")
	}
	return nil, fmt.Errorf("reach the guest: %w", err)
}

// paused says why the VM stands still, or nil.
func (s *supervisor) paused() error {
	err := s.vm.Paused()
	if err == nil {
		return nil
	}
	advice := hint.Of(err)
	if advice == "" {
		advice = "it goes on by itself when the cause is gone"
	}
	return hint.New(fmt.Errorf("the VM stands still: %w", err), advice)
}

// refuse answers what cannot be carried to the guest.
func (s *supervisor) refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, errStopping) {
		w.Header().Set(machine.StateHeader, "stopping")
	}
	if advice := hint.Of(err); advice != "" {
		w.Header().Set(machine.HintHeader, advice)
	}
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}

// service is the Supervisor service.
func (s *supervisor) service() supervisorv1connect.SupervisorHandler { return service{s: s} }

type service struct {
	supervisorv1connect.UnimplementedSupervisorHandler
	s *supervisor
}

func (v service) Status(context.Context, *connect.Request[supervisorv1.StatusRequest]) (*connect.Response[supervisorv1.StatusResponse], error) {
	s := v.s
	res := &supervisorv1.StatusResponse{
		Version: s.Version, Pid: int32(os.Getpid()), Driver: s.Driver.Name(),
		StartedAtNs: s.trace.begin.UnixNano(), Stopping: s.life.isStopping(),
	}
	select {
	case <-s.life.after(running):
		if s.err == nil {
			if err := s.paused(); err != nil {
				res.Paused = err.Error()
			}
			if d := s.vm.Description(); d != "" {
				res.Driver += ": " + d
			}
		}
		res.Boot = s.trace.steps
	default:
	}
	return connect.NewResponse(res), nil
}

// portsEvery is how often one who watches is told of counters.
const portsEvery = time.Second

func (v service) Ports(ctx context.Context, req *connect.Request[supervisorv1.PortsRequest], out *connect.ServerStream[supervisorv1.PortsResponse]) error {
	s := v.s
	select {
	case <-s.life.after(running):
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		res := &supervisorv1.PortsResponse{}
		var changed <-chan struct{}
		if s.Forwarder != nil {
			res.Ports, changed = s.Forwarder.Ports()
		}
		if err := out.Send(res); err != nil || !req.Msg.Watch {
			return err
		}
		select {
		case <-changed:
		case <-time.After(portsEvery):
		case <-s.life.after(gone):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (v service) Shutdown(ctx context.Context, req *connect.Request[supervisorv1.ShutdownRequest]) (*connect.Response[supervisorv1.ShutdownResponse], error) {
	s := v.s
	if req.Msg.Force {
		s.cutStart()
	}
	select {
	case <-s.life.after(running):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.err == nil {
		if err := s.shutdown(ctx, req.Msg.Force); err != nil {
			return nil, err
		}
	}
	select {
	case <-s.life.after(closed):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return connect.NewResponse(&supervisorv1.ShutdownResponse{}), nil
}

// answered tells whether err is the guest's own, not of a connection to it.
func answered(err error) bool {
	var remote *guest.Error
	return errors.As(err, &remote)
}

// shutdown returns when the VM is gone. Where the guest does not do what it
// is asked, the VM runs on.
func (s *supervisor) shutdown(ctx context.Context, force bool) error {
	s.life.ask()
	if force {
		s.forced.Store(true)
		return s.vm.Close()
	}
	return s.powerOff(ctx)
}

// powerOff has the guest shut down. The caller has called s.life.ask.
func (s *supervisor) powerOff(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			s.life.refuse()
			err = hint.New(fmt.Errorf("the VM does not shut down: %w", err), "'lsub shutdown --force' cuts its power")
		}
	}()
	if err := s.paused(); err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, poweroffTimeout)
	defer cancel()
	_, err = guest.NewClient(s.vm, s.Version).Poweroff(call, connect.NewRequest(&guestv1.PoweroffRequest{}))
	if err != nil && (call.Err() != nil || answered(err)) {
		select {
		case <-s.life.after(gone):
			return nil
		default:
			return err
		}
	}
	// Where it has hung up, it is going, maybe because another has cut its power.
	wait := offTimeout
	if err != nil {
		wait = hangUpTimeout
	}
	off, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	select {
	case <-s.life.after(gone):
		return nil
	case <-off.Done():
		if err != nil {
			return err
		}
		return errors.New("the guest has agreed, but the VM still runs")
	}
}
