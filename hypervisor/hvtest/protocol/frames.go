package protocol

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
)

const (
	// EtherType is the type of the frames that guests echo: one of those for experiments.
	EtherType = 0x88b5
	// HeaderLen is the length of an Ethernet header in bytes.
	HeaderLen = 14
	// MaxFrame is the longest frame, in bytes.
	MaxFrame = 65520 + HeaderLen
)

// EchoFrame makes an Ethernet frame into its own answer: it swaps the addresses. It returns
// false for a frame that is to be ignored.
func EchoFrame(f []byte) bool {
	if len(f) < HeaderLen || binary.BigEndian.Uint16(f[12:]) != EtherType {
		return false
	}
	var to [6]byte
	copy(to[:], f)
	copy(f, f[6:12])
	copy(f[6:], to[:])
	return true
}

// EchoStream echoes frames that come after their length in 4 bytes, big-endian, until the
// stream ends.
func EchoStream(c io.ReadWriter) error {
	buf := make([]byte, 4+MaxFrame)
	for {
		if _, err := io.ReadFull(c, buf[:4]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(buf)
		if n > MaxFrame {
			return fmt.Errorf("a frame of %d bytes", n)
		}
		if _, err := io.ReadFull(c, buf[4:4+n]); err != nil {
			return err
		}
		if EchoFrame(buf[4 : 4+n]) {
			if _, err := c.Write(buf[:4+n]); err != nil {
				return err
			}
		}
	}
}

// EchoDatagrams echoes frames of which each is a datagram, until the connection ends.
func EchoDatagrams(c io.ReadWriter) error {
	buf := make([]byte, MaxFrame)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		if EchoFrame(buf[:n]) {
			if _, err := c.Write(buf[:n]); err != nil {
				return err
			}
		}
	}
}

// dialFrames opens a stream for frames to a port of the host. It lasts as long as the machine
// or the host wants.
func dialFrames(m Machine, port string) error {
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		return err
	}
	c, err := m.DialHost(uint32(n))
	if err != nil {
		return err
	}
	go func() {
		defer c.Close()
		EchoStream(c)
	}()
	return nil
}
