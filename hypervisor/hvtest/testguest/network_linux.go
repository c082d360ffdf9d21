package main

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"golang.org/x/sys/unix"
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
