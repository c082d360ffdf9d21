package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
	"github.com/lsub/lsub/profile"
	"github.com/lsub/lsub/share"
	"github.com/lsub/lsub/share/shareproc"
)

// mountTimeout bounds how long the guest may take to mount a share, and the hypervisor to
// give it a device.
const mountTimeout = 40 * time.Second

// shares is the service that shares directories of the host with the distros.
type shares struct {
	s       *supervisor
	log     *slog.Logger
	settled chan struct{} // closed when what is configured was shared, or has failed

	changing sync.Mutex // held by those who add and remove
	number   int        // of the last device

	mu   sync.Mutex
	list map[string]*sharedDir // by directory
}

// sharedDir is a directory that is shared, or could not be.
type sharedDir struct {
	machine.Share
	carrier string // profile.CarrierVirtioFS or CarrierStream
	err     error
	proc    *shareproc.Process
	remove  func(context.Context) error // takes it from the guest
	silence func()                      // ends its echoes
}

func newShares(s *supervisor) *shares {
	return &shares{s: s, log: s.log, settled: make(chan struct{}), list: map[string]*sharedDir{}}
}

func (*shares) Name() string { return "shared folders" }

// Run shares what is configured, and all that is added until ctx is done. The end of the VM
// ends the mounts.
func (h *shares) Run(ctx context.Context, vm VM) error {
	defer h.close()
	configured, err := h.s.Shares()
	if err != nil {
		h.log.Error("nothing is shared", "err", err)
	}
	for i := range configured {
		if _, err := h.add(ctx, configured[i]); err != nil && ctx.Err() == nil {
			level := slog.LevelError
			if errors.Is(err, errors.ErrUnsupported) { // on this system, nothing is
				level = slog.LevelInfo
			}
			h.log.Log(ctx, level, "a folder is not shared", "dir", configured[i].Dir, "err", err)
		}
	}
	select {
	case <-h.settled:
	default:
		close(h.settled)
	}
	<-ctx.Done()
	return nil
}

// close ends all servers. The VM is gone, or going.
func (h *shares) close() {
	h.changing.Lock()
	defer h.changing.Unlock()
	h.mu.Lock()
	all := h.list
	h.list = map[string]*sharedDir{}
	h.mu.Unlock()
	for _, d := range all {
		if d.silence != nil {
			d.silence()
		}
		if d.proc != nil {
			d.proc.Close()
		}
	}
}

// await waits until what is configured is shared, but not for ever.
func (h *shares) await(ctx context.Context) {
	select {
	case <-h.settled:
	case <-ctx.Done():
	case <-time.After(mountTimeout):
	}
}

// add shares a directory. One that is shared already is shared anew.
func (h *shares) add(ctx context.Context, sh machine.Share) (*sharedDir, error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	if err := h.drop(ctx, sh.Dir); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, mountTimeout)
	defer cancel()
	d := &sharedDir{Share: sh}
	d.err = h.mount(ctx, d)
	if d.err != nil && d.proc != nil {
		d.proc.Close()
	}
	if d.err == nil {
		h.echo(d)
	}
	if d.err == nil || sh.Source != machine.ShareAdded { // the user hears of the others only by a list
		h.mu.Lock()
		h.list[sh.Dir] = d
		h.mu.Unlock()
	}
	return d, d.err
}

// mount starts the server of a share, and has the guest mount it.
func (h *shares) mount(ctx context.Context, d *sharedDir) error {
	d.proc = shareproc.New(shareproc.Config{Argv: h.s.ShareServer, Logger: h.log, Share: share.Config{
		Dir: d.Dir, Writable: d.Writable, Metadata: d.Metadata, GuestUID: machine.HostUID(), GuestGID: machine.HostUID(),
	}})
	if err := d.proc.Start(ctx); err != nil {
		return fmt.Errorf("share %s: %w", d.Dir, err)
	}
	d.carrier = d.Carrier
	if d.carrier != profile.CarrierStream {
		err := h.mountDevice(ctx, d)
		if d.carrier == profile.CarrierVirtioFS || !errors.Is(err, errors.ErrUnsupported) {
			d.carrier = profile.CarrierVirtioFS
			return err
		}
		d.carrier = profile.CarrierStream
	}
	return h.mountStream(ctx, d)
}

// guestShare is the share as the guest is told of it.
func (d *sharedDir) guestShare() *guestv1.Share {
	s := &guestv1.Share{Path: machine.GuestPath(d.Dir), ReadOnly: !d.Writable}
	if runtime.GOOS == "windows" {
		s.Same = "/mnt/" + s.Path
	} else {
		s.Same = filepath.ToSlash(d.Dir)
	}
	return s
}

// mountDevice gives the guest a device of the share's.
func (h *shares) mountDevice(ctx context.Context, d *sharedDir) error {
	h.number++
	tag := fmt.Sprintf("share%d", h.number)
	queues := min(h.s.CPUs, 4)
	d.proc.SetQueues(queues)
	detach, err := h.s.vm.AttachFS(ctx, tag, queues, func(ctx context.Context) (*net.UnixConn, error) {
		return d.proc.Connect(ctx, shareproc.VhostUser)
	})
	if err != nil {
		return err
	}
	client := h.s.client()
	_, err = client.MountShare(ctx, connect.NewRequest(&guestv1.MountShareRequest{Share: d.guestShare(), Tag: tag}))
	if err != nil {
		if err := detach(ctx); err != nil {
			h.log.Warn("a device stays in the VM", "err", err)
		}
		return err
	}
	d.remove = func(ctx context.Context) error {
		err := unmountShare(ctx, client, d)
		if err == nil {
			err = detach(ctx)
		}
		return err
	}
	return nil
}

func unmountShare(ctx context.Context, client *guest.Client, d *sharedDir) error {
	d.proc.CancelWaits() // nobody is to wait for a lock for ever
	_, err := client.UnmountShare(ctx, connect.NewRequest(&guestv1.UnmountShareRequest{Path: machine.GuestPath(d.Dir)}))
	return err
}

// mountStream carries the share's requests on a stream from the guest.
func (h *shares) mountStream(ctx context.Context, d *sharedDir) error {
	client := h.s.client()
	conn, err := client.Share(ctx, d.guestShare())
	if err != nil {
		return err
	}
	relaying, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := share.Relay(relaying, conn, func(ctx context.Context) (net.Conn, error) {
			c, err := d.proc.Connect(ctx, shareproc.Stream)
			if err != nil {
				h.log.Error("the server of a share does not start", "dir", d.Dir, "err", err)
				return nil, err
			}
			return c, nil
		})
		if err != nil {
			h.log.Error("a share has failed", "dir", d.Dir, "err", err)
		}
	}()
	d.remove = func(ctx context.Context) error {
		err := unmountShare(ctx, client, d)
		end()
		<-ended
		return err
	}
	return nil
}

// echoRetry is the longest pause between two tries to have changes told.
const echoRetry = 5 * time.Second

// echo has the share's server tell the guest what changes on the host, until d.silence. The
// server may die and be replaced.
func (h *shares) echo(d *sharedDir) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	d.silence = func() {
		cancel()
		<-ended
	}
	go func() {
		defer close(ended)
		for pause := echoRetry / 256; ; pause = min(2*pause, echoRetry) {
			began := time.Now()
			err := h.echoOnce(ctx, d)
			if ctx.Err() != nil {
				return
			}
			h.log.Debug("changes of a share are not told", "dir", d.Dir, "err", err)
			if time.Since(began) > echoRetry {
				pause = echoRetry / 256
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}()
}

// echoOnce is echo with one server.
func (h *shares) echoOnce(ctx context.Context, d *sharedDir) error {
	server, err := d.proc.Connect(ctx, shareproc.Echoes)
	if err != nil {
		return err
	}
	defer server.Close()
	agent, err := h.s.client().Echoes(ctx, machine.GuestPath(d.Dir))
	if err != nil {
		return err
	}
	defer agent.Close()
	both := func() {
		server.Close()
		agent.Close()
	}
	defer context.AfterFunc(ctx, both)()
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(agent, server)
		both()
		copied <- err
	}()
	_, err = io.Copy(server, agent)
	both()
	return errors.Join(err, <-copied)
}

// drop shares a directory no longer.
func (h *shares) drop(ctx context.Context, dir string) error {
	h.mu.Lock()
	d := h.list[dir]
	h.mu.Unlock()
	if d == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, mountTimeout)
	defer cancel()
	if d.silence != nil {
		d.silence()
	}
	if d.remove != nil {
		if err := d.remove(ctx); err != nil {
			return fmt.Errorf("take %s from the VM: %w", dir, err)
		}
	}
	d.proc.Close()
	h.mu.Lock()
	delete(h.list, dir)
	h.mu.Unlock()
	return nil
}

// message is the share as commands are told of it.
func (d *sharedDir) message() *supervisorv1.SharedDir {
	m := &supervisorv1.SharedDir{Share: d.Message(), Guest: "/mnt/host/" + machine.GuestPath(d.Dir), Carrier: d.carrier, Source: d.Source}
	if d.err != nil {
		m.Error = d.err.Error()
	} else {
		m.Pid = int32(d.proc.PID())
	}
	return m
}

// ready waits until the VM's shares can be changed.
func (v service) ready(ctx context.Context) error {
	select {
	case <-v.s.life.after(running):
	case <-ctx.Done():
		return ctx.Err()
	}
	if v.s.err != nil || v.s.life.isStopping() {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_RUNNING, "", "%v", errStopping)
	}
	if v.s.Shares == nil {
		return errors.New("this VM has no shared folders")
	}
	v.s.shares.await(ctx)
	return nil
}

func (v service) AddShare(ctx context.Context, req *connect.Request[supervisorv1.AddShareRequest]) (*connect.Response[supervisorv1.AddShareResponse], error) {
	defer v.s.usage.begin(true)()
	if err := v.ready(ctx); err != nil {
		return nil, err
	}
	m := req.Msg.Share
	dir, err := machine.ShareableDir(m.GetDir())
	if err != nil {
		return nil, err
	}
	d, err := v.s.shares.add(ctx, machine.Share{Dir: dir, Writable: m.Writable, Metadata: m.Metadata, Carrier: m.Carrier, Source: machine.ShareAdded})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&supervisorv1.AddShareResponse{Shared: d.message()}), nil
}

func (v service) RemoveShare(ctx context.Context, req *connect.Request[supervisorv1.RemoveShareRequest]) (*connect.Response[supervisorv1.RemoveShareResponse], error) {
	defer v.s.usage.begin(true)()
	if err := v.ready(ctx); err != nil {
		return nil, err
	}
	h := v.s.shares
	h.changing.Lock()
	defer h.changing.Unlock()
	h.mu.Lock()
	known := h.list[req.Msg.Dir] != nil
	h.mu.Unlock()
	if !known {
		return nil, hint.New(fmt.Errorf("%s is not shared", req.Msg.Dir), "'lsub mount list' shows what is")
	}
	if err := h.drop(ctx, req.Msg.Dir); err != nil {
		return nil, err
	}
	return connect.NewResponse(&supervisorv1.RemoveShareResponse{}), nil
}

func (v service) Shares(ctx context.Context, _ *connect.Request[supervisorv1.SharesRequest]) (*connect.Response[supervisorv1.SharesResponse], error) {
	if err := v.ready(ctx); err != nil {
		return nil, err
	}
	h := v.s.shares
	h.mu.Lock()
	defer h.mu.Unlock()
	res := &supervisorv1.SharesResponse{}
	for _, d := range h.list {
		res.Shares = append(res.Shares, d.message())
	}
	slices.SortFunc(res.Shares, func(a, b *supervisorv1.SharedDir) int { return strings.Compare(a.Share.Dir, b.Share.Dir) })
	return connect.NewResponse(res), nil
}
