package transfer

import (
	"archive/tar"
	"bufio"
	"errors"
	"io"

	"github.com/lsub/lsub/rootfs/pax"
)

// WriteFile writes the bytes of the one file that a sender sends to w. A directory is an error.
func WriteFile(r io.Reader, w io.Writer) error {
	in := bufio.NewReaderSize(r, bufferSize)
	pre, err := readPreamble(in)
	if err != nil {
		return err
	}
	if pre.Dir || len(pre.Names) > 1 {
		return errors.New("a folder does not go to stdout; 'tar -c' in the distro makes an archive of it")
	}
	a := pax.NewReader(in)
	h, err := a.Next()
	if err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return errWire
	}
	at := int64(0)
	for _, e := range a.Extents() {
		if err := writeZeros(w, e.Offset-at); err != nil {
			return err
		}
		if _, err := io.CopyN(w, a, e.Size); err != nil {
			return err
		}
		at = e.Offset + e.Size
	}
	if err := writeZeros(w, h.Size-at); err != nil {
		return err
	}
	if _, err := a.Next(); err != io.EOF {
		return errWire
	}
	return a.Rest()
}

func writeZeros(w io.Writer, n int64) error {
	for zeros := make([]byte, min(n, bufferSize)); n > 0; {
		m, err := w.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}
