package distro_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/machine"
)

// recorder keeps what an operation tells.
type recorder struct {
	mu   sync.Mutex
	said []string
}

func (r *recorder) Progress(s distro.Step) { r.add(s.Text) }
func (r *recorder) Note(text string)       { r.add("note: " + text) }
func (r *recorder) Warn(text string)       { r.add("warning: " + text) }

func (r *recorder) add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.said) == 0 || r.said[len(r.said)-1] != text {
		r.said = append(r.said, text)
	}
}

// TestService lives through a distro's life, as a program other than lsub would.
func TestService(t *testing.T) {
	ctx := t.Context()
	s, stop, err := fakeService(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	events := &recorder{}
	d, err := s.With(events).Install(ctx, distro.InstallOptions{Archive: tinyImage(), Name: "one"})
	check(err)
	if want := "creating one"; !slices.Contains(events.said, want) || events.said[len(events.said)-1] != "" {
		t.Errorf("events of the installation: %q, want %q and an end", events.said, want)
	}
	if _, err := s.Install(ctx, distro.InstallOptions{Archive: tinyImage(), Name: "one"}); err == nil {
		t.Error("two distros have one name")
	}

	memory, user, when := int64(64<<20), "nobody", distro.AutostartVM
	check(s.Manage(ctx, d, distro.Changes{MemoryMax: &memory, DefaultUser: &user, Autostart: &when}))
	tooLittle := int64(1)
	if err := s.Manage(ctx, d, distro.Changes{MemoryMax: &tooLittle}); err == nil {
		t.Error("a limit of one byte was taken")
	}
	snap, err := s.CreateSnapshot(ctx, d, "")
	check(err)
	check(s.Rename(ctx, d, "first"))
	d, err = s.Find("")
	check(err)
	if d.Name != "first" || d.MemoryMax != memory || d.User != user || !d.Autostart || len(d.Snapshots) != 1 {
		t.Errorf("%+v", d)
	}
	check(s.RestoreSnapshot(ctx, d, snap.Name))
	check(s.DeleteSnapshot(ctx, d, snap.Name))

	second, err := s.Clone(ctx, d, distro.CloneOptions{Name: "second"})
	check(err)
	check(s.Start(ctx, second))
	all, err := s.List(ctx, distro.ListOptions{Details: true})
	check(err)
	if len(all) != 2 || !all[0].IsDefault || all[0].State != distro.StateStopped || all[1].State != distro.StateRunning {
		t.Errorf("%+v", all)
	}
	check(s.Stop(ctx, second, distro.StopTimeout))
	check(s.SetDefault(ctx, second))
	st, err := s.Status(ctx)
	check(err)
	if st.State != "running" || st.Distros != 2 || st.Running != 0 {
		t.Errorf("%+v", st)
	}

	_, err = s.Exec(ctx, d, distro.Command{Argv: []string{"nonsense"}})
	if code := guest.ErrorCode(err); code == 0 {
		t.Errorf("a command that there is none of: %v", err)
	}
	broken := errors.New("broken")
	_, err = s.Exec(ctx, d, distro.Command{
		Argv: []string{"cat"}, Stdin: blocked{}, Started: func() (func(), error) { return nil, broken },
	})
	if !errors.Is(err, broken) {
		t.Errorf("an error of Started: %v", err)
	}

	file := filepath.Join(t.TempDir(), "x.tar")
	to, err := distro.ToFile(file, "")
	check(err)
	check(s.Export(ctx, d, distro.ExportOptions{To: to}))
	var out bytes.Buffer
	to, err = distro.ToWriter(&out, "")
	check(err)
	check(s.Export(ctx, d, distro.ExportOptions{To: to}))
	if out.Len() == 0 {
		t.Error("nothing was exported")
	}

	events.said = nil
	check(s.With(events).Unregister(ctx, second))
	if !strings.HasPrefix(events.said[0], "note: first is the default distro now") {
		t.Errorf("%q", events.said)
	}
	check(s.Unregister(ctx, d))
	if _, err := s.Find(""); err == nil {
		t.Error("a distro is left")
	}
}

// TestInterrupted wants the error to be the context's, and nothing to be left.
func TestInterrupted(t *testing.T) {
	paths := machine.Paths{Home: t.TempDir(), Cache: t.TempDir()}
	m, err := machine.Open(machine.Config{Profile: "default", Paths: paths, Version: "1.0"})
	if err != nil {
		t.Fatal(err)
	}
	s := distro.New(distro.Config{Machine: m, Paths: paths, Version: "1.0"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Install(ctx, distro.InstallOptions{Archive: blocked{}, Name: "x"})
	if !errors.Is(err, context.Canceled) || err.Error() != "interrupted; nothing was installed" {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(paths.Cache, "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// blocked is an input from which nothing comes.
type blocked struct{}

func (blocked) Read([]byte) (int, error) { select {} }

var _ io.Reader = blocked{}
