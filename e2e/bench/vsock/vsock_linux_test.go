// Package vsock measures lsub's vsock device alone: package vhostvsock beside
// Debian's vhost-device-vsock, both under the same QEMU with the guest of the
// drivers' tests, and beside a socket pair of the host, which is the most that
// can be had. The benchmark (package main in the directory above) runs it; alone
// it runs, with the profiles that go test can make, as
//
//	go test -run '^$' -bench . -benchtime 1x ./e2e/bench/vsock -peer ROOT
//
// where ROOT is a directory made by
//
//	mmdebstrap --variant=extract --include=vhost-device-vsock sid ROOT
package vsock

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
)

var (
	peerRoot = flag.String("peer", "", "measure the vhost-device-vsock in this `root` directory too")
	runs     = flag.Int("runs", 3, "measure each figure `N` times")
	size     = flag.Int64("mib", 64, "how many `MiB` a bulk run moves")
	trips    = flag.Int("trips", 1000, "how many round trips a run makes")
)

// stall is how long a bulk run may take; what takes longer stands still.
const stall = 30 * time.Second

// dialer reaches the services of package protocol.
type dialer interface {
	dial(port uint32) (net.Conn, error)
}

// BenchmarkVSock runs every figure with every backend in turns, so that what
// else happens on the machine hits all.
func BenchmarkVSock(b *testing.B) {
	guest := makeGuest(b)
	type backend struct {
		name string
		dialer
		stalls bool
	}
	backends := []*backend{
		{name: "lsub", dialer: guest.boot(b, startOurs)},
		{name: "socketpair", dialer: startSocketPair()},
	}
	if *peerRoot != "" {
		backends = append(backends, &backend{name: "peer", dialer: guest.boot(b, startPeer)})
	}
	for _, f := range []struct {
		name    string
		measure func(*testing.B, dialer) error
	}{{"roundtrip", roundTrip}, {"to-guest", toGuest}, {"to-host", toHost}} {
		for range *runs {
			for _, k := range backends {
				if k.stalls {
					continue // it will again, for as long
				}
				b.Run(f.name+"/"+k.name, func(b *testing.B) {
					err := f.measure(b, k)
					if errors.Is(err, os.ErrDeadlineExceeded) {
						k.stalls = true
						b.ReportMetric(1, "stalls")
					} else if err != nil {
						b.Fatal(err)
					}
				})
			}
		}
	}
}

// roundTrip measures one byte's way to the guest's echo and back.
func roundTrip(b *testing.B, d dialer) error {
	c, err := d.dial(protocol.EchoPort)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(stall))
	buf := make([]byte, 1)
	var took []time.Duration
	const practice = 100 // until the emulator has translated the code
	for i := range practice + *trips {
		start := time.Now()
		if _, err := c.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
		if i >= practice {
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e3, "µs")
	b.ReportMetric(float64(took[len(took)*95/100])/1e3, "µs-p95")
	return nil
}

// toGuest measures bytes from the host to a guest process.
func toGuest(b *testing.B, d dialer) error {
	c, err := d.dial(protocol.SinkPort)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(stall))
	total := *size << 20
	start := time.Now()
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, &zeros{total}, make([]byte, 256<<10)); err != nil {
		return err
	}
	written := time.Since(start)
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	var got int64
	if _, err := fmt.Fscanln(c, &got); errors.Is(err, io.EOF) {
		// vhost-device-vsock cannot close one way, so the guest's answer is lost.
		// Less than 1 MiB is still in buffers, which flatters it a little.
		return rate(b, written, total, total)
	} else if err != nil {
		return err
	}
	return rate(b, time.Since(start), got, total)
}

// toHost measures bytes from a guest process to the host.
func toHost(b *testing.B, d dialer) error {
	c, err := d.dial(protocol.SourcePort)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(stall))
	total := *size << 20
	start := time.Now()
	if _, err := fmt.Fprintln(c, total); err != nil {
		return err
	}
	got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
	if err != nil {
		return err
	}
	return rate(b, time.Since(start), got, total)
}

// rate reports MB/s.
func rate(b *testing.B, took time.Duration, got, want int64) error {
	if got != want {
		return fmt.Errorf("%d bytes of %d have arrived", got, want)
	}
	b.ReportMetric(float64(got)/1e6/took.Seconds(), "MB/s")
	return nil
}

// zeros is a reader of left bytes.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	z.left -= n
	return int(n), nil
}
