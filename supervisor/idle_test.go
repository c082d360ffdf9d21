package supervisor

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/lsub/lsub/machine"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guesttest"
	"github.com/lsub/lsub/guest/guestv1"
)

// TestIdle has the VM go when no distro runs and nobody uses the guest, and
// not before.
func TestIdle(t *testing.T) {
	m := openTest(t)
	s, err := supervise(t, m, guesttest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	image := importImage(t, m)
	createDistro(t, m, image, "d-1")
	err = m.Update(t.Context(), func(r *machine.Registry) error {
		return r.Add(machine.Distro{ID: "d-1", Name: "d", Image: image, Autostart: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}

	begin := func() {
		t.Helper()
		if s, err = supervise(t, m, guesttest.Options{}, func(s *Config) { s.Idle = 50 * time.Millisecond }); err != nil {
			t.Fatal(err)
		}
	}
	stays := func(why string) {
		t.Helper()
		select {
		case err := <-s.ended:
			t.Fatalf("the VM went although %s: %v", why, err)
		case <-time.After(300 * time.Millisecond):
		}
	}
	goes := func() {
		t.Helper()
		if err := <-s.ended; err != nil {
			t.Fatal(err)
		}
	}
	info := func() (*guestv1.InfoResponse, error) {
		r, err := guest.NewClient(m.Running(), "1.0").Info(t.Context(), connect.NewRequest(&guestv1.InfoRequest{}))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	}
	stopDistro := func() { // once it runs
		t.Helper()
		for running := false; !running; {
			i, err := info()
			if err != nil {
				t.Fatal(err)
			}
			running = i.Distros[0].Running
		}
		if _, err := guest.NewClient(m.Running(), "1.0").StopDistro(t.Context(), connect.NewRequest(&guestv1.StopDistroRequest{Id: "d-1"})); err != nil {
			t.Fatal(err)
		}
	}
	// A distro that runs holds it, here one that starts with the VM. Questions do not.
	begin()
	stays("a distro runs")
	stopDistro()
	for err == nil {
		_, err = info()
	}
	goes()

	// A stream holds it, without any distro that runs.
	begin()
	end := holdStream(t, m)
	stopDistro()
	stays("somebody imports an image")
	end()
	goes()
	if _, err := m.Status(t.Context()); !errors.Is(err, machine.ErrNotRunning) {
		t.Errorf("Status of a VM that has gone: %v", err)
	}
	if text := m.Record().LastEnd(); text != "" {
		t.Errorf("the next VM would say: %s", text)
	}
}

// holdStream opens a stream that does nothing until end is called.
func holdStream(t *testing.T, m *machine.Machine) (end func()) {
	in, out := io.Pipe()
	opened, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		guest.NewClient(m.Running(), "1.0").ImportImage(t.Context(), "sha256:held", 0, &tellReader{in, opened})
	}()
	<-opened
	return func() {
		out.Close()
		<-ended
	}
}

// tellReader tells when it is read from first.
type tellReader struct {
	io.Reader
	c chan struct{}
}

func (r *tellReader) Read(p []byte) (int, error) {
	if r.c != nil {
		close(r.c)
		r.c = nil
	}
	return r.Reader.Read(p)
}
