package distro

import (
	"fmt"
	"os"
	"os/user"

	"github.com/lsub/lsub/distro/loginitem"
	"github.com/lsub/lsub/machine"
)

// startAtLogin has a distro start when the user logs in, by the name that it has now.
func (s *Service) startAtLogin(d *machine.Distro) error {
	items, err := loginitem.Open()
	if err != nil {
		return err
	}
	item, err := s.loginItem(d)
	if err == nil {
		err = items.Install(item)
	}
	if err != nil {
		return fmt.Errorf("have %s start at login: %w", d.Name, err)
	}
	return nil
}

// notAtLogin undoes startAtLogin, which need not have been called.
func (s *Service) notAtLogin(d *machine.Distro) error {
	items, err := loginitem.Open()
	if err != nil {
		return nil // a system that starts nothing at a login has no item
	}
	if err := items.Remove(d.ID); err != nil {
		return fmt.Errorf("have %s not start at login: %w", d.Name, err)
	}
	return nil
}

// startsAtLogin tells whether a distro starts when the user logs in.
func (s *Service) startsAtLogin(d *machine.Distro) (bool, error) {
	items, err := loginitem.Open()
	if err != nil {
		return false, nil
	}
	return items.Has(d.ID)
}

func (s *Service) loginItem(d *machine.Distro) (loginitem.Item, error) {
	program := s.cfg.Program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return loginitem.Item{}, err
		}
	}
	global := []string{"--profile=" + s.machine.Profile()}
	bare, err := machine.DefaultPaths(withoutHome)
	if err != nil || bare.Home != s.cfg.Paths.Home { // the session may not have the variables of this shell
		global = append(global, "--home="+s.cfg.Paths.Home)
	}
	item := loginitem.Item{ID: d.ID, Name: d.Name, Program: program}
	item.Args = append(append(item.Args, global...), "start", d.Name)
	item.StopArgs = append(append(item.StopArgs, global...), "shutdown")
	if u, err := user.Current(); err == nil {
		item.User = u.Username
	}
	return item, nil
}

// withoutHome is the environment without the variables that move the state.
func withoutHome(name string) string {
	if name == "LSUB_HOME" || name == "XDG_DATA_HOME" {
		return ""
	}
	return os.Getenv(name)
}
