//go:build !linux

package transfer

import "os"

// openEntry opens a file of a directory: see [opened].
func openEntry(_ *os.File, full, _ string) (o opened) {
	if o.file, o.err = openFile(full); o.err == nil {
		o.info, o.err = o.file.Stat()
	}
	return o
}

// small makes a file of which all bytes are here.
func (j *job) small() error {
	return j.make(func(f *os.File) error {
		_, err := f.Write(j.data)
		return err
	})
}
