package hvtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
	"github.com/lsub/lsub/virtionet"
)

// EchoGuest is a guest that serves the test protocol.
func EchoGuest(g *Guest) error { return protocol.Serve(echoMachine{g}) }

// echoMachine is a [protocol.Machine].
type echoMachine struct{ *Guest }

func (m echoMachine) DialHost(port uint32) (net.Conn, error) {
	if err := m.AwaitHost(port); err != nil {
		return nil, err
	}
	return m.Dial(port)
}

func (m echoMachine) Command(line string) (string, error) {
	words := strings.Fields(line)
	cfg := m.Config()
	switch {
	case line == "boot":
		return fmt.Sprintf("%p", m.vm), nil
	case line == "disks":
		return m.disks()
	case line == "nic" && cfg.NIC != nil:
		return fmt.Sprintf("%v %d", cfg.NIC.MAC, cfg.NIC.MTU), nil
	case line == "frames" && cfg.NIC != nil:
		// It ends with the VM, which closes the card.
		if m.vm.framing == virtionet.Datagram {
			go protocol.EchoDatagrams(m.NIC())
		} else {
			go protocol.EchoStream(m.NIC())
		}
		return "", nil
	case len(words) == 2 && words[0] == "balloon":
		held, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return "", err
		}
		return "", m.vm.awaitMemory(cfg.Memory - held)
	case len(words) == 3 && words[0] == "read":
		for _, s := range cfg.Shares {
			if s.Tag == words[1] {
				b, err := os.ReadFile(filepath.Join(s.Dir, words[2]))
				return strings.TrimSpace(string(b)), err
			}
		}
		return "", errors.New("there is no such share")
	}
	return "", fmt.Errorf("unknown command %q", line)
}

func (m echoMachine) disks() (string, error) {
	var out []string
	for _, d := range m.Config().Disks {
		fi, err := os.Stat(d.Path)
		if err != nil {
			return "", err
		}
		mode := "rw"
		if d.ReadOnly {
			mode = "ro"
		}
		out = append(out, fmt.Sprintf("%s:%d:%s", d.Serial, fi.Size(), mode))
	}
	return strings.Join(out, " "), nil
}
