package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
)

// Settings sums up each key that counts from the start of the VM: two profiles of which a
// key has the same sum start the same VM as far as that goes.
func (p *Profile) Settings() map[string]string {
	network, ports := p.Network, p.Ports
	network.Proxy = Proxy{} // counts at once
	ports.Forwards, ports.Reverse, ports.Sockets = slices.Clone(ports.Forwards), slices.Clone(ports.Reverse), slices.Clone(ports.Sockets)
	for i := range ports.Forwards { // where a rule stands makes no difference
		ports.Forwards[i].At = ""
	}
	for i := range ports.Reverse {
		ports.Reverse[i].At = ""
	}
	for i := range ports.Sockets {
		ports.Sockets[i].At = ""
	}
	auto := map[string]bool{}
	for name, d := range p.Distros {
		if d.AutoPorts != p.Ports.Auto {
			auto[name] = d.AutoPorts
		}
	}
	sums := map[string]string{}
	for key, value := range map[string]any{
		"memory": [2]int64{p.Memory, int64(p.MemoryPercent)}, "cpus": [2]int{p.CPUs, p.CPUPercent}, "nested": p.Nested, "idle": p.Idle, "network": network, "ports": ports, "mounts": p.Mounts, "distros' ports.auto": auto,
	} {
		b, err := json.Marshal(value)
		if err != nil {
			continue // there is no such value
		}
		sum := sha256.Sum256(b)
		sums[key] = hex.EncodeToString(sum[:8])
	}
	return sums
}
