// Package loginitem has the operating system start a distro when the user logs in: with
// a unit of the user's systemd, an agent of macOS' launchd or a task of Windows'
// scheduler.
//
//	items, err := loginitem.Open()
//	if err != nil {
//		return err // this system starts nothing at a login
//	}
//	err = items.Install(loginitem.Item{ID: id, Name: name, Program: lsub, Args: []string{"start", name}})
package loginitem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/hint"
)

// Store keeps the items of the user who runs the program. [Open] returns that of
// the operating system. It is safe for concurrent use with different items.
type Store interface {
	// Install adds an item, or replaces the one of the same ID.
	Install(Item) error
	// Remove removes an item; it is no error if there is none.
	Remove(id string) error
	// Has tells whether there is an item.
	Has(id string) (bool, error)
}

// Item starts a distro when the user logs in.
type Item struct {
	ID       string   // of the distro: it stays when the name changes
	Name     string   // of the distro
	User     string   // who logs in, as Windows names accounts
	Program  string   // path of lsub, from the root
	Args     []string // of lsub, to start the distro
	StopArgs []string // of lsub, to shut the VM down
}

// systemd keeps items as units of the user's systemd. A unit is switched
// on by a link, which is what "systemctl enable" makes: that works where the
// user's systemd does not run yet, too.
type systemd struct {
	dir    string // of the user's units
	reload func() error
}

func (s systemd) unit(id string) string { return "lsub-" + id + ".service" }

func (s systemd) link(id string) string {
	return filepath.Join(s.dir, "default.target.wants", s.unit(id))
}

func (s systemd) Install(i Item) error {
	if strings.ContainsFunc(i.Program, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`"'\`, r) }) {
		return hint.New(fmt.Errorf("systemd starts no program whose path has quotation marks, as %s", i.Program), "move lsub elsewhere")
	}
	if err := writeItem(filepath.Join(s.dir, s.unit(i.ID)), i.systemdUnit()); err != nil {
		return err
	}
	link := s.link(i.ID)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	err := os.Symlink(filepath.Join("..", s.unit(i.ID)), link)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s.reload() // it fails where it does not run, and then it reads them when it starts
	return nil
}

func (s systemd) Remove(id string) error {
	gone, err := removeItems(s.link(id), filepath.Join(s.dir, s.unit(id)))
	if gone {
		s.reload()
	}
	return err
}

func (s systemd) Has(id string) (bool, error) { return itemExists(s.link(id)) }

// launchd keeps items as agents of macOS' launchd, which reads them at
// the login.
type launchd struct{ dir string }

func (l launchd) path(id string) string {
	return filepath.Join(l.dir, launchdLabel(id)+".plist")
}

func (l launchd) Install(i Item) error        { return writeItem(l.path(i.ID), i.launchdAgent()) }
func (l launchd) Has(id string) (bool, error) { return itemExists(l.path(id)) }

func (l launchd) Remove(id string) error {
	_, err := removeItems(l.path(id))
	return err
}

// scheduler keeps items as tasks of Windows' scheduler.
type scheduler struct {
	schtasks func(args ...string) error
}

func taskName(id string) string { return `\lsub\` + id }

func (t scheduler) Install(i Item) error {
	f, err := os.CreateTemp("", "lsub-task-*.xml")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(i.windowsTask())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return t.schtasks("/create", "/f", "/tn", taskName(i.ID), "/xml", f.Name())
}

func (t scheduler) Remove(id string) error {
	if there, err := t.Has(id); !there {
		return err
	}
	return t.schtasks("/delete", "/f", "/tn", taskName(id))
}

func (t scheduler) Has(id string) (bool, error) {
	err := t.schtasks("/query", "/tn", taskName(id))
	var exit *exec.ExitError
	if errors.As(err, &exit) { // it does not say why; there being none is the reason
		return false, nil
	}
	return err == nil, err
}

// writeItem replaces a file whole.
func writeItem(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(path, text, 0o644)
}

// removeItems removes files, and tells whether one was there.
func removeItems(paths ...string) (gone bool, err error) {
	for _, path := range paths {
		switch e := os.Remove(path); {
		case e == nil:
			gone = true
		case !errors.Is(e, fs.ErrNotExist):
			err = errors.Join(err, e)
		}
	}
	return gone, err
}

func itemExists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// toolTimeout bounds a program of the system.
const toolTimeout = 15 * time.Second

// runTool runs a program of the system; its output goes into the error.
func runTool(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil && text != "" {
		return fmt.Errorf("%s: %w: %s", name, err, text)
	}
	return err
}

// noLogin says what to do where nothing starts at a login.
func noLogin(what string) error {
	return hint.New(errors.New(what), "have your desktop run 'lsub start DISTRO' when you log in")
}
