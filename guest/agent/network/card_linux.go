package network

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// MakeCard makes the VM's card where the hypervisor gives none: a tap device, of which each
// read returns a frame, and each write sends one.
func MakeCard(mac net.HardwareAddr) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(Card)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err == nil {
		err = setMAC(mac)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make %s: %w", Card, err)
	}
	return os.NewFile(uintptr(fd), Card), nil
}

func setMAC(mac net.HardwareAddr) error {
	link, err := netlink.LinkByName(Card)
	if err != nil {
		return err
	}
	return netlink.LinkSetHardwareAddr(link, mac)
}

// maxFrame is the largest frame of a card whose MTU is 65520, and more.
const maxFrame = 1 << 16

// Carry moves frames between a card and a stream, each after its length in 4 bytes, big-endian,
// until one of them fails. It closes both.
func Carry(card, stream io.ReadWriteCloser) error {
	failed := make(chan error, 2)
	go func() { failed <- toStream(stream, card) }()
	go func() { failed <- toCard(card, stream) }()
	err := <-failed
	card.Close()
	stream.Close()
	<-failed
	return err
}

func toStream(stream io.Writer, card io.Reader) error {
	buf := make([]byte, 4+maxFrame)
	for {
		n, err := card.Read(buf[4:])
		if err != nil {
			return fmt.Errorf("read a frame: %w", err)
		}
		binary.BigEndian.PutUint32(buf, uint32(n))
		if _, err := stream.Write(buf[:4+n]); err != nil {
			return err
		}
	}
}

func toCard(card io.Writer, stream io.Reader) error {
	r := bufio.NewReaderSize(stream, 4*maxFrame)
	buf := make([]byte, maxFrame)
	for {
		if _, err := io.ReadFull(r, buf[:4]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(buf)
		if n > maxFrame {
			return fmt.Errorf("the host has sent a frame of %d bytes", n)
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return err
		}
		// The kernel refuses frames that are too short or malformed, and all while the card is down.
		if _, err := card.Write(buf[:n]); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EIO) {
			return fmt.Errorf("write a frame: %w", err)
		}
	}
}
