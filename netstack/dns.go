package netstack

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/lsub/lsub/netstack/limiter"
	"github.com/lsub/lsub/netstack/names"
)

const (
	maxQueries = 512 // from the guest at a time
	maxDNSConn = 64
	// dnsIdle is how long a TCP connection stays open without a query.
	dnsIdle = 30 * time.Second
)

// namesConfig returns the configuration of the gateway's resolver.
func (n *Network) namesConfig() names.Config {
	c := n.cfg.Names
	c.Zone, c.Local, c.Reverse, c.Logger = zone, n.lookup, n.reverse, n.log
	c.Loopback = n.Host()
	if n.cfg.NoHostAccess {
		c.Loopback = netip.Addr{}
	}
	return c
}

func (n *Network) lookup(name string) ([]netip.Addr, bool) {
	switch name {
	case "gateway":
		return []netip.Addr{n.Gateway()}, true
	case "host":
		return []netip.Addr{n.Host()}, true
	}
	if n.cfg.Lookup == nil {
		return nil, false
	}
	addr, ok := n.cfg.Lookup(name)
	return []netip.Addr{addr}, ok
}

// Search returns the current search domains for the guest's programs. For names without a
// dot, the gateway searches them itself.
func (n *Network) Search() []string {
	var domains []string
	size := 0
	for _, d := range n.names.Search() {
		// They are passed on the kernel's command line, to a resolv.conf.
		if size += len(d) + 1; isDomain(d) && len(domains) < 6 && size < 512 {
			domains = append(domains, d)
		}
	}
	return domains
}

func isDomain(d string) bool {
	return d != "" && strings.Trim(strings.ToLower(d), "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

// reverse returns the names of the gateway and the host. No server is asked for the network's
// addresses.
func (n *Network) reverse(addr netip.Addr) (string, bool) {
	switch addr {
	case n.Gateway():
		return "gateway." + zone, true
	case n.Host():
		return "host." + zone, true
	}
	if !n.subnet.Contains(addr) {
		return "", false
	}
	if n.cfg.Reverse != nil {
		if name := n.cfg.Reverse(addr); name != "" {
			return name + "." + zone, true
		}
	}
	return "", true
}

// serveDNS answers queries on the gateway's port 53 until the process ends.
func (n *Network) serveDNS() error {
	at := tcpip.FullAddress{NIC: nic, Addr: address4(n.Gateway()), Port: 53}
	packets, err := gonet.DialUDP(n.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	ln, err := gonet.ListenTCP(n.stack, at, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	queries := n.newLimiter("DNS queries", maxQueries)
	conns := n.newLimiter("DNS connections", maxDNSConn)
	go n.serveDatagrams(packets, queries)
	go func() {
		for {
			conn, err := ln.Accept()
			switch {
			case err != nil:
				n.log.Error("netstack: DNS over TCP has ended", "err", err)
				return
			case !conns.TryAcquire():
				conn.Close()
				continue
			}
			go func() {
				defer conns.Release()
				n.serveDNSConn(conn, queries)
			}()
		}
	}()
	return nil
}

func (n *Network) serveDatagrams(packets *gonet.UDPConn, queries *limiter.Limiter) {
	buf := make([]byte, maxUDPPayload)
	for failures := 0; ; {
		size, from, err := packets.ReadFrom(buf)
		if err != nil { // for example, of an answer that nobody took
			if failures++; failures > 1000 {
				n.log.Error("netstack: DNS has ended", "err", err)
				return
			}
			continue
		}
		failures = 0
		if !queries.TryAcquire() {
			continue // the client asks again
		}
		query := append([]byte(nil), buf[:size]...)
		go func() {
			defer queries.Release()
			if answer := n.names.Answer(context.Background(), query, names.UDP); answer != nil {
				packets.WriteTo(answer, from)
			}
		}()
	}
}

// serveDNSConn answers the queries of a connection, each as soon as possible.
func (n *Network) serveDNSConn(conn net.Conn, queries *limiter.Limiter) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer func() {
		conn.Close()
		cancel()
		wg.Wait()
	}()
	var write sync.Mutex
	for {
		conn.SetReadDeadline(time.Now().Add(dnsIdle))
		query, err := names.ReadFrame(conn)
		if err != nil || !queries.TryAcquire() {
			break
		}
		wg.Go(func() {
			defer queries.Release()
			answer := n.names.Answer(ctx, query, names.TCP)
			if answer == nil {
				return
			}
			write.Lock()
			defer write.Unlock()
			conn.SetWriteDeadline(time.Now().Add(dnsIdle))
			if names.WriteFrame(conn, answer) != nil {
				conn.Close()
			}
		})
	}
	// A client that has closed its half still wants the answers.
	wg.Wait()
}
