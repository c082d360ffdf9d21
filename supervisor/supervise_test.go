package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1/supervisorv1connect"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guesttest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/guest/guestv1/guestv1connect"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
)

// openTest opens a machine of the test's own.
func openTest(t *testing.T) *machine.Machine {
	t.Helper()
	m, err := machine.Open(machine.Config{
		Profile: "default", Version: "1.0",
		Paths:  machine.Paths{Home: t.TempDir(), Runtime: shortDir(t), Cache: t.TempDir()},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		err = m.MakeDir()
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// reopen opens a machine with another configuration.
func reopen(t *testing.T, m *machine.Machine, change func(*machine.Config)) *machine.Machine {
	t.Helper()
	cfg := m.Config()
	change(&cfg)
	m, err := machine.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lsub-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// supervised is a supervisor in the test's process.
type supervised struct {
	m     *machine.Machine
	fake  *hvtest.Fake
	stop  context.CancelFunc
	ended chan error // gets what Run returned
}

// supervise runs a supervisor of m and returns when it has reported its start.
func supervise(t *testing.T, m *machine.Machine, o guesttest.Options, change ...func(*Config)) (*supervised, error) {
	t.Helper()
	o.Version = m.Config().Version
	fake := &hvtest.Fake{}
	fake.Guest = func(g *hvtest.Guest) error {
		o := o
		o.Console, o.Disk, o.Pause = g.Console(), m.DataDisk(), fake.VMs()[0].SetPaused
		return guesttest.Run(g, o)
	}
	return superviseWith(t, m, fake, change...)
}

func superviseWith(t *testing.T, m *machine.Machine, fake *hvtest.Fake, change ...func(*Config)) (*supervised, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := &supervised{m: m, fake: fake, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		cfg := Config{
			Config: m.Config(), Driver: fake, CPUs: 1, Memory: hypervisor.MinMemory, Guest: bootFiles,
			Reporter: machine.NewReporter(w),
		}
		for _, f := range change {
			f(&cfg)
		}
		s.ended <- Run(ctx, cfg)
	}()
	t.Cleanup(func() {
		cancel()
		<-finished
		if left, err := os.ReadDir(m.Config().Paths.Runtime); err != nil || len(left) != 0 {
			t.Errorf("the supervisor leaves %v, %v", left, err)
		}
	})
	return s, m.Follow(r)
}

func bootFiles(context.Context) (GuestFiles, error) {
	exe, err := os.Executable() // any file will do
	return GuestFiles{Kernel: exe, System: exe}, err
}

// importImage gives the guest an image, and returns its ID.
func importImage(t *testing.T, m *machine.Machine) string {
	t.Helper()
	const empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	c := guest.NewClient(m.Running(), m.Config().Version)
	if err := c.ImportImage(t.Context(), empty, 0, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	return empty
}

func createDistro(t *testing.T, m *machine.Machine, image, id string) {
	t.Helper()
	_, err := guest.NewClient(m.Running(), m.Config().Version).CreateDistro(t.Context(), connect.NewRequest(
		&guestv1.CreateDistroRequest{Distro: &guestv1.Distro{Id: id, Name: id}, From: &guestv1.CreateDistroRequest_Image{Image: image}}))
	if err != nil {
		t.Fatal(err)
	}
}

func TestSupervise(t *testing.T) {
	m := openTest(t)
	if _, err := m.Status(t.Context()); !errors.Is(err, machine.ErrNotRunning) {
		t.Errorf("Status of a VM that is off: %v", err)
	}
	if err := m.Shutdown(t.Context(), false); !errors.Is(err, machine.ErrNotRunning) {
		t.Errorf("Shutdown of a VM that is off: %v", err)
	}
	s, err := supervise(t, m, guesttest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := m.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Version != "1.0" || st.Driver != "fake" || int(st.Pid) != os.Getpid() || len(st.Boot) < 4 || st.Stopping {
		t.Errorf("Status = %v", st)
	}
	for _, b := range st.Boot {
		if b.DurationNs < 0 {
			t.Errorf("step %v", b)
		}
	}
	image := importImage(t, m)
	createDistro(t, m, image, "d-1")
	d := &guestv1.Distro{Id: "d-1", Name: "d"}
	c := guest.NewClient(m, "1.0")
	if _, err := c.StartDistro(t.Context(), connect.NewRequest(&guestv1.StartDistroRequest{Distro: d})); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	exit, err := c.Exec(t.Context(), &guestv1.Exec{
		Distro: d, Argv: [][]byte{[]byte("cat")},
	}, guest.Stdio{Stdin: strings.NewReader("through the tunnel"), Stdout: &out})
	if err != nil || exit.Status() != 0 || out.String() != "through the tunnel" {
		t.Errorf("Exec = %v, %v, %q", exit, err, &out)
	}
	// A second supervisor sees that it is not needed.
	if _, err := supervise(t, m, guesttest.Options{}); err != nil {
		t.Errorf("a second supervisor: %v", err)
	}
	if err := m.Shutdown(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("Run = %v", err)
	}
	rec := m.Record()
	if rec == nil || !rec.Clean || rec.Ended.IsZero() || rec.LastEnd() != "" {
		t.Errorf("record %+v", rec)
	}
	if _, err := os.Stat(rec.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// describedVM knows more of itself.
type describedVM struct{ hypervisor.VM }

func (describedVM) Description() string { return "all in the mind" }

func TestDescribed(t *testing.T) {
	m := openTest(t)
	vm, err := (&hvtest.Fake{}).Start(t.Context(), hypervisor.Config{
		Name: "x", Dir: t.TempDir(), Kernel: os.Args[0], CPUs: 1, Memory: hypervisor.MinMemory, Console: filepath.Join(t.TempDir(), "console"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	s := &supervisor{
		Config: Config{Config: m.Config(), Driver: &hvtest.Fake{}}, m: m,
		vm: localIO{describedVM{vm}, nil}, life: newLife(),
	}
	for _, want := range []string{"fake", "fake: all in the mind"} {
		res, err := s.service().Status(t.Context(), nil)
		if err != nil || res.Msg.Driver != want {
			t.Errorf("driver %q, %v; want %q", res.Msg.Driver, err, want)
		}
		if want == "fake" {
			s.life.enter(running)
		}
	}
}

func TestReconcile(t *testing.T) {
	m := openTest(t)
	s, err := supervise(t, m, guesttest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	image := importImage(t, m)
	for _, id := range []string{"kept-1", "left-2"} {
		createDistro(t, m, image, id)
	}
	restart := func() *guestv1.InfoResponse {
		t.Helper()
		if err := m.Shutdown(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		<-s.ended
		if s, err = supervise(t, m, guesttest.Options{}); err != nil {
			t.Fatal(err)
		}
		info, err := guest.NewClient(m.Running(), "1.0").Info(t.Context(), connect.NewRequest(&guestv1.InfoRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return info.Msg
	}
	// A registry that is not there says nothing of the distros.
	if info := restart(); len(info.Distros) != 2 {
		t.Errorf("without a registry, %d distros are left of 2", len(info.Distros))
	}
	change := func(f func(r *machine.Registry) error) {
		t.Helper()
		if err := m.Update(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	change(func(r *machine.Registry) error {
		return r.Add(machine.Distro{ID: "kept-1", Name: "kept", Image: image})
	})
	// Nor does one that does not know them all; but what was removed goes.
	if info := restart(); len(info.Distros) != 2 {
		t.Errorf("%d distros are left of 2", len(info.Distros))
	}
	change(func(r *machine.Registry) error {
		if len(r.Unregistered) != 1 || r.Unregistered[0].ID != "left-2" {
			t.Errorf("kept aside: %+v", r.Unregistered)
		}
		r.SetRemoved("left-2")
		return nil
	})
	info := restart()
	if len(info.Distros) != 1 || info.Distros[0].Id != "kept-1" {
		t.Errorf("distros %v, want the registered one", info.Distros)
	}
	if len(info.Images) != 1 {
		t.Errorf("images %v: that of a distro stays", info.Images)
	}
	change(func(r *machine.Registry) error { r.Remove("kept-1"); return nil })
	if info := restart(); len(info.Images) != 1 {
		t.Errorf("images %v: one that was used a moment ago stays, to be installed again", info.Images)
	}
	change(func(r *machine.Registry) error { r.Unused[image] = time.Now().Add(-machine.ImageAge); return nil })
	if info := restart(); len(info.Images) != 0 {
		t.Errorf("images %v: one that was not used for a week goes", info.Images)
	}
}

// TestSocket calls the socket as curl would.
func TestSocket(t *testing.T) {
	m := openTest(t)
	s, err := supervise(t, m, guesttest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	socket := m.Record().Socket
	if fi, err := os.Stat(socket); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", fi.Mode(), err)
	}
	hc := &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) },
		DisableKeepAlives: true,
	}}
	call := func(procedure string) (int, string, http.Header) {
		t.Helper()
		res, err := hc.Post("http://lsub"+procedure, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b), res.Header
	}
	code, body, head := call(guestv1connect.GuestInfoProcedure)
	if code != 200 || !strings.Contains(body, `"kernel":"0.0-fake"`) || head.Get(machine.VersionHeader) != "1.0" {
		t.Errorf("relayed Info: %d %s %v", code, body, head)
	}
	if code, body, _ := call(supervisorv1connect.SupervisorStatusProcedure); code != 200 || !strings.Contains(body, `"driver":"fake"`) {
		t.Errorf("Status: %d %s", code, body)
	}
	if code, _, head := call("/nowhere"); code != 404 || head.Get(machine.VersionHeader) != "1.0" {
		t.Errorf("an unknown path: %d", code)
	}
	if code, _ := connectTo(t, socket, "example.com:80"); code != 400 {
		t.Errorf("a tunnel to elsewhere: %d", code)
	}
	if code, _ := connectTo(t, socket, "guest:99999999999"); code != 400 {
		t.Errorf("a tunnel to no port: %d", code)
	}
	if code, body := connectTo(t, socket, "guest:77"); code != 503 || !strings.Contains(body, "reach the guest") {
		t.Errorf("a tunnel to nobody: %d %s", code, body)
	}
	s.fake.VMs()[0].SetPaused(errors.New("the disk is full"))
	if code, body := connectTo(t, socket, "guest:1024"); code != 503 || !strings.Contains(body, "the VM stands still: the disk is full") {
		t.Errorf("a tunnel to a halted VM: %d %s", code, body)
	}
	if st, err := m.Status(t.Context()); err != nil || !strings.Contains(st.Paused, "the disk is full") {
		t.Errorf("Status of a halted VM: %v, %v", st, err)
	}
	if err := m.Shutdown(t.Context(), false); err == nil || hint.Of(err) == "" {
		t.Errorf("Shutdown of a halted VM: %v", err)
	}
	s.fake.VMs()[0].SetPaused(nil)
	if code, _ := connectTo(t, socket, "guest:1024"); code != 200 {
		t.Errorf("a tunnel to a VM that goes on: %d", code)
	}
}

// connectTo asks for a tunnel and returns the answer.
func connectTo(t *testing.T, socket, to string) (int, string) {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", to, to)
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == 200 {
		return 200, ""
	}
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

func TestOtherVersion(t *testing.T) {
	m := openTest(t)
	if _, err := supervise(t, m, guesttest.Options{}); err != nil {
		t.Fatal(err)
	}
	cfg := m.Config()
	cfg.Version = "2.0"
	newer, err := machine.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = newer.Dial(t.Context(), guest.ControlPort)
	if err == nil || !strings.Contains(err.Error(), "started by lsub 1.0, and this is lsub 2.0") || hint.Of(err) == "" {
		t.Errorf("Dial = %v", err)
	}
	if st, err := newer.Status(t.Context()); err != nil || st.Version != "1.0" {
		t.Errorf("Status = %v, %v", st, err)
	}
	if err := newer.Shutdown(t.Context(), false); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

// TestEnds has VMs end in each way, and looks at what the next start is told.
func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*testing.T, *supervised)
		want string // of the note
		err  bool   // of Run
		why  string // that a command is told which runs
	}{
		"told to end": {end: func(_ *testing.T, s *supervised) { s.stop() }, why: "the VM was shut down"},
		"forced": {end: func(t *testing.T, s *supervised) {
			if err := s.m.Shutdown(t.Context(), true); err != nil {
				t.Error(err)
			}
		}, why: "the VM was shut down by force"},
		"died": {
			end:  func(_ *testing.T, s *supervised) { s.fake.VMs()[0].Die(errors.New("QEMU crashed")) },
			want: "the last VM ended by itself: vm lsub-default: QEMU crashed; starting afresh", err: true,
			why: "the VM died: vm lsub-default: QEMU crashed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := openTest(t)
			s, err := supervise(t, m, guesttest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			dialed := time.Now()
			c.end(t, s)
			if why := m.Ended(t.Context(), dialed); why == nil || why.Error() != c.why {
				t.Errorf("Ended = %v, want %q", why, c.why)
			}
			if err := <-s.ended; (err != nil) != c.err {
				t.Errorf("Run = %v", err)
			}
			var notes []string
			m = reopen(t, m, func(c *machine.Config) { c.Notice = func(text string) { notes = append(notes, text) } })
			if _, err := supervise(t, m, guesttest.Options{}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(notes, "|"); got != c.want {
				t.Errorf("note %q, want %q", got, c.want)
			}
			if why := m.Ended(t.Context(), dialed); why != nil {
				t.Errorf("Ended = %v, but the record is of a later VM", why)
			}
		})
	}
}

func TestKilledSupervisor(t *testing.T) {
	m := openTest(t)
	dir, err := m.RuntimeDir()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "sock")
	l, err := net.Listen("unix", socket) // a socket that is left behind
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := m.WriteRecord(&machine.Record{Lsub: "1.0", PID: 1, Socket: socket}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Status(t.Context()); !errors.Is(err, machine.ErrNotRunning) {
		t.Errorf("Status = %v", err)
	}
	if err := m.Ended(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("Ended = %v", err)
	}
	var notes []string
	m = reopen(t, m, func(c *machine.Config) { c.Notice = func(text string) { notes = append(notes, text) } })
	if _, err := supervise(t, m, guesttest.Options{}); err != nil {
		t.Fatal(err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "the supervisor (process 1) was killed") {
		t.Errorf("notes %q", notes)
	}
}

// TestShutdownAtOnce has several shut a VM down, one by force.
func TestShutdownAtOnce(t *testing.T) {
	for range 5 {
		m := openTest(t)
		s, err := supervise(t, m, guesttest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan error)
		for i := range 4 {
			go func() { asked <- m.Shutdown(t.Context(), i == 2) }()
		}
		for range 4 {
			if err := <-asked; err != nil && !errors.Is(err, machine.ErrNotRunning) {
				t.Errorf("Shutdown = %v", err)
			}
		}
		if err := <-s.ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
}
