package distro

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// replaceFile writes a file that is there, in the place of one before it, only
// when it is whole. What is no regular file (a device, a pipe) is written to.
func replaceFile(path string, write func(*os.File) error) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	} else if err == nil {
		if path, err = filepath.EvalSymlinks(path); err != nil { // a link stays one
			return err
		}
	}
	if f := openUnnamed(path); f != nil {
		return fillFile(f, write, func() error { return giveName(f, path) })
	}
	return replaceNamed(path, write)
}

// replaceNamed is replaceFile where a file has a name from the start.
func replaceNamed(path string, write func(*os.File) error) error {
	return replace(path, func(tmp string) error {
		f, err := os.OpenFile(tmp, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return fillFile(f, write, func() error { return nil })
	})
}

// fillFile has write fill f, then then, and closes it.
func fillFile(f *os.File, write func(*os.File) error, then func() error) error {
	err := write(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = then()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// replace has write make what is to stand at path under a name beside it: an
// empty file for its user alone, since distros hold secrets.
func replace(path string, write func(tmp string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".lsub-*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.RemoveAll(tmp)))
		}
	}()
	if err := f.Close(); err != nil {
		return err
	}
	if err := write(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
