package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace has write fill a new file for the user alone, and puts it in the place
// of the file at path. On Linux it has no name until then, so that nothing is left
// where this process is killed. What is there and no regular file (a device, a
// pipe) is written to; a symbolic link stays, and the file that it leads to is
// replaced.
func Replace(path string, write func(*os.File) error) error {
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

// CanHide tells whether Replace in dir writes files without a name, which leave
// nothing behind where the process is killed.
func CanHide(dir string) bool {
	f := openUnnamed(filepath.Join(dir, "x"))
	if f == nil {
		return false
	}
	f.Close()
	return true
}

// replaceNamed is Replace for systems where a file has a name from the start.
func replaceNamed(path string, write func(*os.File) error) error {
	return ReplaceTree(path, func(tmp string) error {
		f, err := os.OpenFile(tmp, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return fillFile(f, write, func() error { return nil })
	})
}

// fillFile has write fill f, calls then, and closes f.
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

// ReplaceTree has write make a file or a directory under a name beside path,
// where an empty file for the user alone is, and renames that to path.
func ReplaceTree(path string, write func(tmp string) error) (err error) {
	f, err := Create(filepath.Dir(path), "."+filepath.Base(path)+".lsub-*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp)) // which takes a missing file for removed
		}
	}()
	if err := f.Close(); err != nil {
		return err
	}
	if err := write(tmp); err != nil {
		return err
	}
	return rename(tmp, path)
}
