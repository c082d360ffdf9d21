package agent

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/wslconf"
)

// readSettings reads the distro's /etc/wsl.conf, and /etc/lsub.conf over it, and
// says what is wrong with them. It runs where the distro is the root.
func readSettings() (wslconf.Settings, []string) {
	return settingsOf(readSmall)
}

func settingsOf(read func(name string) ([]byte, error)) (wslconf.Settings, []string) {
	s := wslconf.Defaults()
	var warnings []string
	for _, name := range []string{"/etc/wsl.conf", "/" + confFile} {
		b, err := read(name)
		switch {
		case os.IsNotExist(err):
		case err != nil:
			warnings = append(warnings, fmt.Sprintf("%s: not read: %v", name, err))
		default:
			warnings = append(warnings, s.Apply(name, b)...)
		}
	}
	return s, warnings
}

// readSmall reads a file of the distro's that has a few lines. The distro may
// have put anything in its place: nothing but a regular file is read, and no
// more than 4 MiB.
func readSmall(name string) ([]byte, error) {
	f, err := os.OpenFile(name, smallFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f)
}

// readSmallIn is readSmall beneath root.
func readSmallIn(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, smallFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f)
}

const smallFlags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY

func readRegular(f *os.File) ([]byte, error) {
	const most = 4 << 20
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("%s is no small regular file", f.Name())
	}
	return io.ReadAll(io.LimitReader(f, most))
}
