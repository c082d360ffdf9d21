package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
)

// networkVersion is the format of network.json.
const networkVersion = 1

type networkState struct {
	Version int          `json:"version"`
	Subnet  netip.Prefix `json:"subnet"`
}

// Subnet returns the network that the VM had last; zero where it had none.
func (m *Machine) Subnet() (netip.Prefix, error) {
	var s networkState
	err := readJSON(m.path("network.json"), networkVersion, &s, m.cfg.Logger)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return netip.Prefix{}, fmt.Errorf("read the VM's last network: %w", err)
	}
	return s.Subnet, nil
}

// KeepSubnet has [Machine.Subnet] return subnet. The caller holds the
// supervisor's lock, or nobody else starts the VM.
func (m *Machine) KeepSubnet(subnet netip.Prefix) error {
	if err := m.MakeDir(); err != nil {
		return err
	}
	return writeJSON(m.path("network.json"), networkState{networkVersion, subnet})
}
