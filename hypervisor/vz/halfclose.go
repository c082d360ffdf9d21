package vz

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"unsafe"
)

// halfConn is a stream of which one direction can be closed.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// rawConnField is the field in which the binding keeps the socket of a stream.
const rawConnField = "rawConn"

// halfCloser returns conn as one that can be half closed. The binding's streams
// (*vz.VirtioSocketConnection) cannot: they are unix sockets in a struct with an unexported
// field. The bytes are those of the socket, so the socket itself takes the struct's place.
func halfCloser(conn net.Conn) (halfConn, error) {
	if half, ok := conn.(halfConn); ok {
		return half, nil
	}
	v := reflect.ValueOf(conn)
	if v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		f := v.Elem().FieldByName(rawConnField)
		if f.IsValid() && f.Type() == reflect.TypeFor[net.Conn]() {
			// Sound: the field is addressable, as conn is a pointer to its struct, and its type
			// was compared. Nobody writes it after the binding has made the struct.
			raw := *(*net.Conn)(unsafe.Pointer(f.UnsafeAddr()))
			if half, ok := raw.(halfConn); ok {
				return half, nil
			}
			return nil, fmt.Errorf("the framework's streams are %T, which cannot be half closed", raw)
		}
	}
	return nil, errors.New("the binding's streams have changed: half of one cannot be closed")
}
