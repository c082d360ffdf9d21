package vhostuser

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func FuzzMessage(f *testing.F) {
	add := func(request uint32, size int, fds int) {
		b := encodeReply(request, make([]byte, size))
		binary.LittleEndian.PutUint32(b[4:], msgVersion|msgNeedReply)
		f.Add(b, fds)
	}
	add(msgGetFeatures, 0, 0)
	add(msgSetFeatures, 8, 0)
	add(msgSetMemTable, 8+2*regionLen, 0)
	add(msgSetVringAddr, 40, 0)
	add(msgSetVringKick, 8, 1)
	add(msgAddMemReg, 40, 1)
	add(msgGetConfig, 12, 0)
	table := encodeReply(msgSetMemTable, append([]byte{2, 0, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{1}, 2*regionLen)...))
	binary.LittleEndian.PutUint32(table[4:], msgVersion)
	f.Add(table, 2)
	f.Fuzz(func(t *testing.T, b []byte, fds int) {
		if len(b) < msgHeaderLen {
			return
		}
		request, flags, size, err := decodeMsgHeader((*[msgHeaderLen]byte)(b))
		if err != nil {
			return
		}
		payload := b[msgHeaderLen:]
		payload = payload[:min(len(payload), int(size))]
		m, err := decodeMessage(request, flags, payload, fds)
		if err != nil {
			return
		}
		if len(m.Regions) > maxTableRegions || m.ConfigSize > maxConfigLen {
			t.Fatalf("%+v", m)
		}
		if (request == msgSetMemTable || request == msgAddMemReg) && fds != len(m.Regions) {
			t.Fatalf("%d descriptors for %d regions", fds, len(m.Regions))
		}
		g := &guestMemory{}
		for _, r := range m.Regions {
			if checkRegion(r, g.regions) == nil {
				g.regions = append(g.regions, region{memRegion: r})
			}
		}
	})
}

func TestDecodeMessage(t *testing.T) {
	for name, c := range map[string]struct {
		request uint32
		size    int
		fds     int
	}{
		"no payload":            {msgSetFeatures, 0, 0},
		"unexpected descriptor": {msgGetFeatures, 0, 1},
		"kick without one":      {msgSetVringKick, 8, 0},
		"region without one":    {msgAddMemReg, 40, 0},
		"short address":         {msgSetVringAddr, 39, 0},
		"short table":           {msgSetMemTable, 7, 0},
		"unknown":               {99, 0, 0},
	} {
		if m, err := decodeMessage(c.request, msgVersion, make([]byte, c.size), c.fds); err == nil {
			t.Errorf("%s: taken as %+v", name, m)
		}
	}
}
