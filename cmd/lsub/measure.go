package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/lsub/lsub/netstack"
	"github.com/lsub/lsub/netstack/guesttcp"
	"github.com/lsub/lsub/netstack/gvisortcp"
	"github.com/lsub/lsub/virtionet"
)

// opening is a connection of either TCP.
type opening interface {
	net.Conn
	Opened(context.Context) error
}

// gvisorFrom is the first port of the guest that is reached through gVisor's TCP, while
// the two are measured in the same VM. LSUB_MEASURE_GVISOR says how it is tuned.
const gvisorFrom = 7700

func (d *direct) measure(card virtionet.Card) {
	tune, ok := os.LookupEnv("LSUB_MEASURE_GVISOR")
	if !ok || tune == "" {
		return
	}
	cfg := gvisortcp.Config{Card: card, FirstPort: 63001, LastPort: guesttcp.LastPort}
	for _, word := range strings.Split(tune, ",") {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "buffer":
			cfg.Buffer, _ = strconv.Atoi(value)
		case "mss":
			cfg.MSS, _ = strconv.Atoi(value)
		case "cubic":
			cfg.Cubic = true
		case "delay":
			cfg.Delay = true
		case "norack":
			cfg.NoRACK = true
		case "nosack":
			cfg.NoSACK = true
		}
	}
	g, err := gvisortcp.New(cfg)
	if err != nil {
		panic(err)
	}
	d.gvisor = g
}

// both hands each frame to the TCP that it is for.
type both struct {
	gvisor *gvisortcp.Link
	netstack.Neighbor
}

func (b both) Receive(parts [][]byte) bool {
	return b.gvisor.Receive(parts) || b.Neighbor.Receive(parts)
}

func (b both) Room() {
	b.gvisor.Room()
	b.Neighbor.Room()
}
