// Package echo is what the server of a share (package share) and the guest's agent (package
// sharemount) say to each other about changes on the host.
//
// The agent names the thread that will make the echoes: a number of 32 bits. The server then
// sends batches of orders. When the agent has done a batch, it answers with the number of its
// orders, and the server sends the next one. All numbers are little-endian.
//
//	batch: uint32 length of the rest, orders
//	order: uint16 do, uint64 dir, uint64 toDir, uint32 mode, and name, to, path, toPath, each as uint16 length and bytes
package echo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Do says which operations an order consists of. They are made in the order of the bits.
type Do uint16

// The operations.
const (
	Unlink Do = 1 << iota
	Rmdir
	Rename     // to To in ToDir
	Make       // by Mode: mknod, mkdir or symlink
	Attributes // set both times
	Modify     // have the kernel drop its pages, and set the time of modification
	CloseWrite // open to write, and close after Modify
	Refresh    // have the kernel ask for the attributes
	Renew      // have the kernel look the names up anew, which changes nothing
)

// Order is what the guest repeats of a change on the host.
type Order struct {
	Do   Do
	Dir  uint64 // the node of a directory
	Path string // of the directory, from the share's; "" for the share's own
	Name string // of its entry; "" for the directory itself
	// ToDir, ToPath and To are where a Rename leads.
	ToDir      uint64
	ToPath, To string
	Mode       uint32 // format and permissions (st_mode) of what is made
}

// MaxBatch is the most orders of a batch.
const MaxBatch = 64

const (
	maxName  = 255
	maxPath  = 4096
	orderLen = 2 + 8 + 8 + 4 // without texts
	maxBytes = MaxBatch * (orderLen + 4*2 + 2*maxName + 2*maxPath)
)

var errMalformed = errors.New("malformed orders for echoes")

// WriteBatch sends orders, at most MaxBatch.
func WriteBatch(w io.Writer, orders []Order) error {
	b := make([]byte, 4)
	le := binary.LittleEndian
	for i := range orders {
		o := &orders[i]
		if len(o.Name) > maxName || len(o.To) > maxName || len(o.Path) > maxPath || len(o.ToPath) > maxPath || len(orders) > MaxBatch {
			return errMalformed
		}
		b = le.AppendUint16(b, uint16(o.Do))
		b = le.AppendUint64(b, o.Dir)
		b = le.AppendUint64(b, o.ToDir)
		b = le.AppendUint32(b, o.Mode)
		for _, text := range []string{o.Name, o.To, o.Path, o.ToPath} {
			b = append(le.AppendUint16(b, uint16(len(text))), text...)
		}
	}
	le.PutUint32(b, uint32(len(b)-4))
	_, err := w.Write(b)
	return err
}

// ReadBatch receives orders. Its error is io.EOF at the end of the stream.
func ReadBatch(r io.Reader) ([]Order, error) {
	n, err := ReadNumber(r)
	if err != nil {
		return nil, err
	}
	if n > maxBytes {
		return nil, fmt.Errorf("%w: %d bytes", errMalformed, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	var orders []Order
	for len(b) > 0 {
		o, rest, ok := decode(b)
		if !ok || len(orders) == MaxBatch {
			return nil, errMalformed
		}
		orders, b = append(orders, o), rest
	}
	return orders, nil
}

func decode(b []byte) (o Order, rest []byte, ok bool) {
	if len(b) < orderLen {
		return o, nil, false
	}
	le := binary.LittleEndian
	o = Order{Do: Do(le.Uint16(b)), Dir: le.Uint64(b[2:]), ToDir: le.Uint64(b[10:]), Mode: le.Uint32(b[18:])}
	b = b[22:]
	for _, text := range []*string{&o.Name, &o.To, &o.Path, &o.ToPath} {
		if len(b) < 2 || len(b) < 2+int(le.Uint16(b)) {
			return o, nil, false
		}
		n := 2 + int(le.Uint16(b))
		*text, b = string(b[2:n]), b[n:]
	}
	return o, b, len(o.Name) <= maxName && len(o.To) <= maxName && len(o.Path) <= maxPath && len(o.ToPath) <= maxPath
}

// WriteNumber sends a number.
func WriteNumber(w io.Writer, n uint32) error {
	_, err := w.Write(binary.LittleEndian.AppendUint32(nil, n))
	return err
}

// ReadNumber receives a number. Its error is io.EOF at the end of the stream.
func ReadNumber(r io.Reader) (uint32, error) {
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b[:]), nil
}
