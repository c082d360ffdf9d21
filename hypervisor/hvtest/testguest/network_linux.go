package main

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
)

// card returns the name of the first network card.
func card() (string, error) {
	cards, err := filepath.Glob("/sys/class/net/e*")
	if err != nil {
		return "", err
	}
	if len(cards) == 0 {
		return "", fmt.Errorf("no network card")
	}
	return filepath.Base(cards[0]), nil
}

func nic() (string, error) {
	name, err := card()
	if err != nil {
		return "", err
	}
	mac, err := read("/sys/class/net/" + name + "/address")
	if err != nil {
		return "", err
	}
	mtu, err := read("/sys/class/net/" + name + "/mtu")
	return mac + " " + mtu, err
}

func up(address string) error {
	name, err := card()
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for _, set := range []struct {
		what  uint
		value []byte
		flags uint16
	}{
		{unix.SIOCSIFADDR, addr.AsSlice(), 0},
		{unix.SIOCSIFNETMASK, []byte{255, 255, 255, 0}, 0},
		{unix.SIOCSIFFLAGS, nil, unix.IFF_UP | unix.IFF_RUNNING},
	} {
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if set.value == nil {
			req.SetUint16(set.flags)
		} else if err := req.SetInet4Addr(set.value); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, set.what, req); err != nil {
			return fmt.Errorf("%s: request %#x: %w", name, set.what, err)
		}
	}
	return nil
}

// frames starts the first network card and echoes the frames that come through it.
func frames() error {
	name, err := card()
	if err != nil {
		return err
	}
	index, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	proto := uint16(protocol.EtherType>>8 | protocol.EtherType&0xff<<8) // in network order
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return err
	}
	if err := unix.Bind(s, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index.Index}); err != nil {
		return err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return err
	}
	go func() {
		defer unix.Close(s)
		err := protocol.EchoDatagrams(packets(s))
		fmt.Println("testguest: frames:", err)
	}()
	return nil
}

// packets is a packet socket. Each Read and Write is a frame.
type packets int

func (p packets) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(p), b)
		// The card was brought up, or down, meanwhile.
		if err != unix.EINTR && err != unix.ENETDOWN {
			return n, err
		}
	}
}

func (p packets) Write(b []byte) (int, error) { return unix.Write(int(p), b) }

// udpEcho answers for as long as the machine runs.
func udpEcho(port string) error {
	c, err := net.ListenPacket("udp4", ":"+port)
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	return nil
}
