package relay

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// buffers are what packets are read into.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// maxPacket is the most bytes of a UDP packet.
const maxPacket = 1<<16 - 1

// Packets moves UDP packets both ways until the stream ends or the peer refuses packets,
// and closes both. On the stream, each packet follows its length in 2 bytes, big endian.
// conn is connected; head was already read from the stream.
func Packets(stream io.ReadWriteCloser, conn *net.UDPConn, head []byte) {
	back := make(chan struct{})
	go func() {
		defer close(back)
		packetsOut(io.MultiReader(bytes.NewReader(head), stream), conn)
		conn.SetReadDeadline(time.Unix(1, 0))
	}()
	packetsIn(stream, conn)
	stream.Close()
	<-back
	conn.Close()
}

// packetsOut sends what comes from the host.
func packetsOut(stream io.Reader, conn *net.UDPConn) {
	r := bufio.NewReaderSize(stream, 4<<10)
	var buf []byte
	for {
		var size [2]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n > len(buf) {
			buf = make([]byte, n)
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return
		}
		// A packet that cannot be sent is lost, as packets may be. That its peer
		// refuses packets, packetsIn hears.
		conn.Write(buf[:n])
	}
}

// packetsIn passes on what the peer says, several packets at once where it says
// much.
func packetsIn(stream io.ReadWriteCloser, conn *net.UDPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	for {
		var buf *[bufferSize]byte
		used := 0
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			buf = buffers.Get().(*[bufferSize]byte)
			used, failed = readPackets(int(fd), buf[:])
			if used == 0 && failed == nil {
				buffers.Put(buf)
				buf = nil
				return false
			}
			return true
		})
		if buf != nil {
			if used > 0 && failed == nil {
				_, failed = stream.Write(buf[:used])
			}
			buffers.Put(buf)
		}
		if err != nil || failed != nil {
			return
		}
	}
}

// readPackets reads the packets that are there, as far as the buffer has room
// for one of any size, each behind its length.
func readPackets(fd int, buf []byte) (used int, err error) {
	for len(buf)-used >= 2+maxPacket {
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, buf[used+2:]) })
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return used, err
		}
		binary.BigEndian.PutUint16(buf[used:], uint16(n))
		used += 2 + n
	}
	return used, nil
}
