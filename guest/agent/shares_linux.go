package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/distroinit"
	"github.com/lsub/lsub/guest/agent/sharemount"
	"github.com/lsub/lsub/guest/guestv1"
)

// shares are the directories of the host that are mounted below Config.Host. Distros have
// slaves of that directory as /mnt/host: what is mounted in it shows in all of them at once.
type shares struct {
	changing sync.Mutex // held by those who mount and unmount

	mu     sync.Mutex
	list   []*guestv1.Share
	echoes map[string]*shareEchoes // by path
}

// shareEchoes repeats in a share what has changed on the host.
type shareEchoes struct {
	root    *os.File   // of a mount that can be written
	running sync.Mutex // held by the one that uses root

	// Guarded by shares.mu.
	conn net.Conn // of the one that runs, or nil
	ran  bool     // an earlier one has told changes, or lost some
}

// all returns the shares. They are not changed.
func (s *shares) all() []*guestv1.Share {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

func (s *shares) remove(path string) (was *guestv1.Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = slices.DeleteFunc(s.list, func(o *guestv1.Share) bool {
		if o.Path == path {
			was = o
		}
		return o.Path == path
	})
	return was
}

// find returns the innermost share that has a path below /mnt/host, or nil.
func (s *shares) find(at string) (found *guestv1.Share) {
	for _, sh := range s.all() {
		if (at == sh.Path || strings.HasPrefix(at, sh.Path+"/") || sh.Path == ".") && (found == nil || len(sh.Path) > len(found.Path)) {
			found = sh
		}
	}
	return found
}

func checkShare(s *guestv1.Share) error {
	ok := s != nil && s.Path != "" && path.Clean("/"+s.Path) == "/"+s.Path && !strings.ContainsRune(s.Path, 0)
	if ok && s.Same != "" {
		ok = path.Clean(s.Same) == s.Same && path.IsAbs(s.Same) && !strings.ContainsRune(s.Same, 0)
	}
	if !ok || s.Path == "." {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "%q is no path of a share", s.GetPath())
	}
	return nil
}

// addShare mounts a share, which mount does at the path that it gets, and shows it in the
// distros. mount returns the root of another mount of it, as package sharemount does.
func (a *Agent) addShare(s *guestv1.Share, mount func(target string) (root *os.File, err error)) error {
	if err := checkShare(s); err != nil {
		return err
	}
	if a.cfg.Host == "" {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "this VM has no shares")
	}
	a.shares.changing.Lock()
	defer a.shares.changing.Unlock()
	a.dropShare(s.Path)
	root, err := os.OpenRoot(a.cfg.Host)
	if err != nil {
		return err
	}
	defer root.Close()
	// A share may be in another one, whose links must not lead out of it.
	if err := root.MkdirAll(s.Path, 0o755); err != nil {
		return fmt.Errorf("a place for the share %s: %w", s.Path, err)
	}
	dir, err := root.OpenFile(s.Path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("a place for the share %s: %w", s.Path, err)
	}
	defer dir.Close()
	at, err := mount(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return err
	}
	a.shares.mu.Lock()
	a.shares.list = append(a.shares.list, s)
	if a.shares.echoes == nil {
		a.shares.echoes = map[string]*shareEchoes{}
	}
	a.shares.echoes[s.Path] = &shareEchoes{root: at}
	a.shares.mu.Unlock()
	for _, d := range a.entered() {
		d.showShare(s)
	}
	return nil
}

// removeShare unmounts a share in all distros. Those who have files open keep them, as long
// as the host serves them.
func (a *Agent) removeShare(path string) {
	a.shares.changing.Lock()
	defer a.shares.changing.Unlock()
	a.dropShare(path)
}

func (a *Agent) dropShare(path string) {
	s := a.shares.remove(path)
	if s == nil {
		return
	}
	for _, d := range a.entered() {
		d.hideShare(s)
	}
	if err := unix.Unmount(filepath.Join(a.cfg.Host, path), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		a.log.Warn("a share stays mounted", "path", path, "err", err)
	}
	a.shares.endEchoes(path)
}

// endEchoes ends the echoes in a share, and closes their mount.
func (s *shares) endEchoes(path string) {
	s.mu.Lock()
	e := s.echoes[path]
	delete(s.echoes, path)
	if e != nil && e.conn != nil {
		e.conn.Close()
	}
	s.mu.Unlock()
	if e != nil {
		e.running.Lock()
		e.root.Close()
		e.running.Unlock()
	}
}

// echoShare repeats in a share what has changed on the host, as long as the stream lasts.
func (a *Agent) echoShare(conn net.Conn, w *guest.Writer, path string) error {
	s := &a.shares
	s.mu.Lock()
	e := s.echoes[path]
	if e == nil {
		s.mu.Unlock()
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "%q is not shared", path)
	}
	if e.conn != nil { // of a server that is gone
		e.conn.Close()
	}
	e.conn = conn
	s.mu.Unlock()
	e.running.Lock()
	defer e.running.Unlock()
	s.mu.Lock()
	ok, again := e.conn == conn && s.echoes[path] == e, e.ran
	e.ran = true
	s.mu.Unlock()
	if !ok {
		return nil
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.conn == conn {
			e.conn = nil
		}
	}()
	if again {
		if err := sharemount.DropEntries(e.root); err != nil {
			a.log.Warn("a share may show what was before", "path", path, "err", err)
		}
	}
	if err := w.SendMessage(guest.FrameStarted, &guestv1.Started{}); err != nil {
		return nil
	}
	if err := sharemount.Echo(conn, e.root); err != nil && !errors.Is(err, io.EOF) {
		a.log.Warn("changes of a share are not told any more", "path", path, "err", err)
	}
	return nil
}

// entered returns the distros that have a namespace thread.
func (a *Agent) entered() (all []*distro) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.distros {
		if d.currentThread() != nil {
			all = append(all, d)
		}
	}
	return all
}

// showTimeout bounds what a distro may take over showing a share.
const showTimeout = 10 * time.Second

// onShare runs f in the distro, and only logs its error: without the share at its second
// place, the distro is of use all the same.
func (d *distro) onShare(what string, s *guestv1.Share, f func() error) {
	ctx, cancel := context.WithTimeout(context.Background(), showTimeout)
	defer cancel()
	_, err := onNSThread(ctx, d, func() (struct{}, error) { return struct{}{}, f() }, func(struct{}) {})
	if err != nil && !errors.Is(err, errStopping) {
		d.a.log.Warn(what, "distro", d.spec.Name, "path", s.Same, "err", err)
	}
}

// showShare shows a share at the same path as on the host, if that hides nothing.
func (d *distro) showShare(s *guestv1.Share) {
	if s.Same == "" {
		return
	}
	d.onShare("a share is not shown at the same path", s, func() error {
		shown, err := distroinit.ShowShare(s.Path, s.Same)
		if shown {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.shown == nil {
				d.shown = map[string]bool{}
			}
			d.shown[s.Path] = true
		}
		return err
	})
}

// hideShare takes back what showShare did.
func (d *distro) hideShare(s *guestv1.Share) {
	if !d.shows(s) {
		return
	}
	d.onShare("a share stays at the same path", s, func() error { return unix.Unmount(s.Same, unix.MNT_DETACH) })
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.shown, s.Path)
}

func (d *distro) shows(s *guestv1.Share) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shown[s.Path]
}

// showShares shows all shares in a distro that starts.
func (d *distro) showShares() {
	d.a.shares.changing.Lock()
	defer d.a.shares.changing.Unlock()
	for _, s := range d.a.shares.all() {
		d.showShare(s)
	}
}

// hostDir returns where a directory of the host is in the distro, and the share that has it;
// nil if none has.
func (d *distro) hostDir(at string) (dir string, s *guestv1.Share) {
	at = strings.TrimPrefix(path.Clean("/"+at), "/")
	if s = d.a.shares.find(at); s == nil {
		return "", nil
	}
	if rest := strings.TrimPrefix(at, s.Path); d.shows(s) {
		return s.Same + rest, s
	}
	return path.Join(distroinit.HostDir, at), s
}

func (c control) MountShare(ctx context.Context, req *connect.Request[guestv1.MountShareRequest]) (*connect.Response[guestv1.MountShareResponse], error) {
	m := req.Msg
	err := c.a.addShare(m.Share, func(target string) (*os.File, error) {
		return sharemount.VirtioFS(ctx, m.Tag, target, m.Share.ReadOnly)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&guestv1.MountShareResponse{}), nil
}

func (c control) UnmountShare(ctx context.Context, req *connect.Request[guestv1.UnmountShareRequest]) (*connect.Response[guestv1.UnmountShareResponse], error) {
	c.a.removeShare(req.Msg.Path)
	return connect.NewResponse(&guestv1.UnmountShareResponse{}), nil
}

// streamShare mounts a share whose requests the stream carries, as long as that lasts.
func (a *Agent) streamShare(conn net.Conn, w *guest.Writer, s *guestv1.Share) error {
	var m *sharemount.Mounted
	err := a.addShare(s, func(target string) (_ *os.File, err error) {
		if m, err = sharemount.Stream(conn, target, s.ReadOnly); err != nil {
			return nil, err
		}
		return m.Root, nil
	})
	if err != nil {
		return err
	}
	if err := w.SendMessage(guest.FrameStarted, &guestv1.Started{}); err != nil {
		a.log.Warn("the host of a share is gone", "path", s.Path, "err", err)
	}
	m.Serve()
	return nil
}
