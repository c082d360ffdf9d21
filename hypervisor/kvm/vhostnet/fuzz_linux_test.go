package vhostnet

import (
	"encoding/binary"
	"testing"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
	"github.com/lsub/lsub/hypervisor/kvm/vhostuser/vhosttest"
	"github.com/lsub/lsub/virtionet"
)

// bounded is a receiver that checks the guarantees for all receivers.
type bounded struct{ t *testing.T }

func (b bounded) Receive(parts [][]byte) {
	n := 0
	for _, p := range parts {
		n += len(p)
		for i := range p {
			p[i]++ // every byte is accessible
		}
	}
	if n < virtionet.HeaderLen || n > maxFrame {
		b.t.Errorf("a frame of %d bytes was passed on", n)
	}
}

func (b bounded) Flush() {}
func (b bounded) Room()  {}

// FuzzRings gives a device rings of 16 entries and an indirect table, all with arbitrary
// content, and takes and sends frames.
func FuzzRings(f *testing.F) {
	desc := func(addr uint64, n uint32, flags, next uint16) []byte {
		le := binary.LittleEndian
		b := le.AppendUint32(le.AppendUint64(nil, addr), n)
		return le.AppendUint16(le.AppendUint16(b, flags), next)
	}
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	const w, next, ind = vhosttest.Write, vhosttest.Next, vhosttest.Indirect
	table := vhosttest.Address(indirectAt)
	three := []byte{0, 0, 3, 0, 0, 0, 1, 0, 2, 0}
	f.Add(join(desc(0x300000, 1536, w, 0), desc(0x310000, 1536, w, 0), desc(0x320000, 1536, w, 0)), three,
		join(desc(0x400000, 12, next, 1), desc(0x400100, 1500, 0, 0), desc(0x500000, 11, 0, 0)), three, []byte{}, uint16(3000), uint8(0))
	f.Add(join(desc(table, 32, ind, 0)), []byte{0, 0, 1, 0, 0, 0}, join(desc(table+32, 32, ind, 0)), []byte{0, 0, 1, 0, 0, 0},
		join(desc(0x300000, 5, w|next, 1), desc(0x300100, 70000, w, 0), desc(0x400000, 5, next, 1), desc(0x800000-8, 8, 0, 0)), uint16(60000), uint8(1))
	f.Add(join(desc(0, 0, w, 0)), []byte{0, 0, 1, 0}, join(desc(0, 1<<31, 0, 0)), []byte{0, 0, 1, 0}, []byte{}, uint16(1), uint8(2))
	f.Add(join(desc(0x300000, 100000, w, 0)), []byte{0, 0, 1, 0}, join(desc(0, 100000, next, 1), desc(0, 100000, 0, 0)), []byte{0, 0, 1, 0}, []byte{}, uint16(65535), uint8(3))
	f.Fuzz(func(t *testing.T, rxDesc, rxAvail, txDesc, txAvail, indirect []byte, size uint16, how uint8) {
		d := New(func(virtionet.Card) virtionet.Receiver { return bounded{t} }, nil)
		vm := vhosttest.New(t, d.Serve)
		defer d.Close()
		defer vm.Close()
		offered := vm.Handshake().Features
		if how&1 != 0 {
			offered &^= featMrgRxbuf
		}
		if how&2 != 0 {
			offered &^= vhostuser.FeatureEventIdx
		}
		vm.SetFeatures(offered)
		vm.SetMemory()
		rx, tx := vm.NewRing(0, 16), vm.NewRing(1<<20, 16)
		copy(vm.Mem[rx.Desc:rx.Desc+16*vhosttest.DescLen], rxDesc)
		copy(vm.Mem[rx.Avail:rx.Avail+40], rxAvail)
		copy(vm.Mem[tx.Desc:tx.Desc+16*vhosttest.DescLen], txDesc)
		copy(vm.Mem[tx.Avail:tx.Avail+40], txAvail)
		copy(vm.Mem[indirectAt:indirectAt+1<<16], indirect)
		vm.Setup(0, rx, 0)
		vm.Setup(1, tx, 0)
		f := frame(int(size))
		for range 3 {
			d.Send(f[:virtionet.HeaderLen], f[virtionet.HeaderLen:])
			d.Send(frame(60))
		}
		vhosttest.Signal(rx.Kick)
		vhosttest.Signal(tx.Kick)
		vm.Stop(1)
		vm.Stop(0)
	})
}

// indirectAt is the offset of the table that indirect descriptors may point to.
const indirectAt = 2 << 20
