// Package echo is what the server of a share (package share) and the guest's agent (package
// sharemount) say to each other about changes on the host.
//
// The agent names the thread that will make the echoes: a number of 32 bits. The server then
// sends batches of orders. When the agent has done a batch, it answers with the number of its
// orders, and the server sends the next one. All numbers are little-endian.
//
//	batch: uint32 length of the rest, orders
//	order: uint16 do, uint64 dir, uint64 toDir, uint32 mode, uint8 length and name, uint8 length and to
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
	Name string // of its entry; "" for the directory itself
	// ToDir and To are where a Rename leads.
	ToDir uint64
	To    string
	Mode  uint32 // format and permissions (st_mode) of what is made
}

// MaxBatch is the most orders of a batch.
const MaxBatch = 64

const (
	maxName  = 255
	orderLen = 2 + 8 + 8 + 4 + 1 + 1 // without names
	maxBytes = MaxBatch * (orderLen + 2*maxName)
)

var errMalformed = errors.New("malformed orders for echoes")

// WriteBatch sends orders, at most MaxBatch.
func WriteBatch(w io.Writer, orders []Order) error {
	b := make([]byte, 4)
	le := binary.LittleEndian
	for i := range orders {
		o := &orders[i]
		if len(o.Name) > maxName || len(o.To) > maxName || len(orders) > MaxBatch {
			return errMalformed
		}
		b = le.AppendUint16(b, uint16(o.Do))
		b = le.AppendUint64(b, o.Dir)
		b = le.AppendUint64(b, o.ToDir)
		b = le.AppendUint32(b, o.Mode)
		b = append(append(b, byte(len(o.Name))), o.Name...)
		b = append(append(b, byte(len(o.To))), o.To...)
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
	for _, name := range []*string{&o.Name, &o.To} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return o, nil, false
		}
		n := 1 + int(b[0])
		*name, b = string(b[1:n]), b[n:]
	}
	return o, b, true
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
