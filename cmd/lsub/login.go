package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
)

// installLogin has a distro start when the user logs in. Where it does
// already, it does so from now on as it is called now.
func (a *app) installLogin(d *machine.Distro) error {
	items, err := newLoginItems()
	if err != nil {
		return err
	}
	item, err := a.loginItem(d)
	if err == nil {
		err = items.install(item)
	}
	if err != nil {
		return fmt.Errorf("have %s start at login: %w", d.Name, err)
	}
	return nil
}

// removeLogin undoes installLogin, which need not have been called.
func (a *app) removeLogin(d *machine.Distro) error {
	items, err := newLoginItems()
	if err != nil {
		return nil // where there is no way to install one, there is none
	}
	if err := items.remove(d.ID); err != nil {
		return fmt.Errorf("have %s not start at login: %w", d.Name, err)
	}
	return nil
}

// hasLogin tells whether a distro starts when the user logs in.
func (a *app) hasLogin(d *machine.Distro) (bool, error) {
	items, err := newLoginItems()
	if err != nil {
		return false, nil
	}
	return items.has(d.ID)
}

func (a *app) loginItem(d *machine.Distro) (loginItem, error) {
	exe, err := os.Executable()
	if err != nil {
		return loginItem{}, err
	}
	global := []string{"--profile=" + a.machine.Profile()}
	bare, err := machine.DefaultPaths(withoutHome)
	if err != nil || bare.Home != a.paths.Home { // the session may not have the variables of this shell
		global = append(global, "--home="+a.paths.Home)
	}
	item := loginItem{id: d.ID, name: d.Name, exe: exe}
	item.args = append(append(item.args, global...), "start", d.Name)
	item.stop = append(append(item.stop, global...), "shutdown")
	if u, err := user.Current(); err == nil {
		item.user = u.Username
	}
	return item, nil
}

// withoutHome is the environment without what moves the state.
func withoutHome(name string) string {
	if name == "LSUB_HOME" || name == "XDG_DATA_HOME" {
		return ""
	}
	return os.Getenv(name)
}

// loginItems are what starts when the user logs in, in the way of one system.
type loginItems interface {
	install(loginItem) error
	remove(id string) error // nil where there is none
	has(id string) (bool, error)
}

// systemdLogin keeps items as units of the user's systemd. A unit is switched
// on by a link, which is what "systemctl enable" makes: that works where the
// user's systemd does not run yet, too.
type systemdLogin struct {
	dir    string // of the user's units
	reload func() error
}

func (s systemdLogin) unit(id string) string { return "lsub-" + id + ".service" }

func (s systemdLogin) link(id string) string {
	return filepath.Join(s.dir, "default.target.wants", s.unit(id))
}

func (s systemdLogin) install(i loginItem) error {
	if strings.ContainsFunc(i.exe, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`"'\`, r) }) {
		return hint.New(fmt.Errorf("systemd starts no program whose path has quotation marks, as %s", i.exe), "move lsub elsewhere")
	}
	if err := writeItem(filepath.Join(s.dir, s.unit(i.id)), i.systemdUnit()); err != nil {
		return err
	}
	link := s.link(i.id)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	err := os.Symlink(filepath.Join("..", s.unit(i.id)), link)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s.reload() // it fails where it does not run, and then it reads them when it starts
	return nil
}

func (s systemdLogin) remove(id string) error {
	gone, err := removeItems(s.link(id), filepath.Join(s.dir, s.unit(id)))
	if gone {
		s.reload()
	}
	return err
}

func (s systemdLogin) has(id string) (bool, error) { return itemExists(s.link(id)) }

// launchdLogin keeps items as agents of macOS' launchd, which reads them at
// the login.
type launchdLogin struct{ dir string }

func (l launchdLogin) path(id string) string {
	return filepath.Join(l.dir, launchdLabel(id)+".plist")
}

func (l launchdLogin) install(i loginItem) error   { return writeItem(l.path(i.id), i.launchdAgent()) }
func (l launchdLogin) has(id string) (bool, error) { return itemExists(l.path(id)) }

func (l launchdLogin) remove(id string) error {
	_, err := removeItems(l.path(id))
	return err
}

// taskLogin keeps items as tasks of Windows' scheduler.
type taskLogin struct {
	schtasks func(args ...string) error
}

func taskName(id string) string { return `\lsub\` + id }

func (t taskLogin) install(i loginItem) error {
	f, err := os.CreateTemp("", "lsub-task-*.xml")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(i.windowsTask())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return t.schtasks("/create", "/f", "/tn", taskName(i.id), "/xml", f.Name())
}

func (t taskLogin) remove(id string) error {
	if there, err := t.has(id); !there {
		return err
	}
	return t.schtasks("/delete", "/f", "/tn", taskName(id))
}

func (t taskLogin) has(id string) (bool, error) {
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

// runTool runs a program of the system; what it says goes into the error.
func runTool(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanTimeout)
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
