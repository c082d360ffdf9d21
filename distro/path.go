package distro

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lsub/lsub/distro/crossing"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
)

// PathInDistro returns the name that distros have for a path of the host. The path need not be
// there.
func (s *Service) PathInDistro(ctx context.Context, host string) (string, error) {
	dirs, err := s.sharedDirs(ctx)
	if err != nil {
		return "", err
	}
	return pathInDistro(host, dirs)
}

func pathInDistro(host string, dirs []string) (string, error) {
	real, err := realPath(host)
	if err != nil {
		return "", err
	}
	if guest, ok := crossing.ToGuest(real, dirs, machine.GuestPath); ok {
		return guest, nil
	}
	return "", hint.New(fmt.Errorf("distros do not see %s", host), "'lsub mount add "+filepath.Dir(real)+"' shares its folder; 'lsub cp' copies")
}

// PathOnHost returns the host's name for an absolute path of a distro.
func (s *Service) PathOnHost(ctx context.Context, guest string) (string, error) {
	if !path.IsAbs(guest) {
		return "", hint.New(fmt.Errorf("%q is not absolute", guest), "a path of a distro begins with a slash")
	}
	dirs, err := s.sharedDirs(ctx)
	if err != nil {
		return "", err
	}
	if host, ok := crossing.ToHost(path.Clean(guest), dirs, machine.GuestPath); ok {
		return host, nil
	}
	return "", hint.New(fmt.Errorf("%s is not in a folder of the host", guest), "those are below "+crossing.HostDir+" ('lsub mount list'); 'lsub cp' copies a distro's own files")
}

// sharedDirs returns the shared folders, inner ones first.
func (s *Service) sharedDirs(ctx context.Context) (dirs []string, err error) {
	mounts, _, err := s.Mounts(ctx)
	for _, m := range mounts {
		dirs = append(dirs, m.Dir)
	}
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) })
	return dirs, err
}

// realPath is absolute and without links. What is not there yet has none.
func realPath(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	rest := ""
	for dir := abs; ; {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			return "", err
		}
		dir, rest = up, filepath.Join(filepath.Base(dir), rest)
	}
}

// crossingEnv returns the variables of the caller that LSUBENV and WSLENV name, with the names
// that distros have for paths.
func (s *Service) crossingEnv(ctx context.Context) (env []string, err error) {
	var dirs []string
	passed := map[string]bool{}
	for _, list := range []string{"LSUBENV", "WSLENV"} {
		spec := s.cfg.Getenv(list)
		vars, err := crossing.Variables(spec)
		if err != nil {
			return nil, hint.New(fmt.Errorf("%s: %w", list, err), "it is NAME[/FLAGS]:NAME[/FLAGS]…")
		}
		for _, v := range vars {
			value := s.cfg.Getenv(v.Name)
			if v.ToHost || value == "" || passed[v.Name] {
				continue
			}
			passed[v.Name] = true
			if (v.Path || v.List) && dirs == nil {
				if dirs, err = s.sharedDirs(ctx); err != nil {
					return nil, err
				}
			}
			switch {
			case v.Path:
				if value, err = pathInDistro(value, dirs); err != nil {
					s.events.Warn(fmt.Sprintf("%s is not passed on: %v", v.Name, err))
					continue
				}
			case v.List:
				value = s.listInDistro(v.Name, value, dirs)
			}
			env = append(env, v.Name+"="+value)
		}
		if spec != "" {
			env = append(env, list+"="+spec)
		}
	}
	return env, nil
}

// listInDistro translates a list of paths, and leaves out what distros do not see.
func (s *Service) listInDistro(name, value string, dirs []string) string {
	var list []string
	for _, p := range filepath.SplitList(value) {
		guest, err := pathInDistro(p, dirs)
		if err != nil {
			s.events.Warn(fmt.Sprintf("%s goes without %s: %v", name, p, err))
			continue
		}
		list = append(list, guest)
	}
	return strings.Join(list, ":")
}
