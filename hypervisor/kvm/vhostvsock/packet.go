package vhostvsock

import (
	"encoding/binary"
	"fmt"
)

// Operations of virtio 1.2, section 5.10.6.
const (
	opInvalid       = 0
	opRequest       = 1
	opResponse      = 2
	opRst           = 3
	opShutdown      = 4
	opRW            = 5
	opCreditUpdate  = 6
	opCreditRequest = 7
)

// Flags of an opShutdown packet: the directions that its sender ends.
const (
	shutdownRecv = 1
	shutdownSend = 2
	shutdownBoth = shutdownRecv | shutdownSend
)

const (
	typeStream = 1
	// hostCID is the address of the host in every guest.
	hostCID = 2
	// headerLen is the size of struct virtio_vsock_hdr.
	headerLen = 44
	// maxPayload is the maximum payload of a packet, in bytes. Linux on either side takes no
	// more.
	maxPayload = 64 << 10
)

// header is the decoded struct virtio_vsock_hdr that begins each packet.
type header struct {
	SrcCID, DstCID   uint64
	SrcPort, DstPort uint32
	Len              uint32
	Type, Op         uint16
	Flags            uint32
	BufAlloc, FwdCnt uint32
}

// decodeHeader decodes the first headerLen bytes of b.
func decodeHeader(b *[headerLen]byte) header {
	le := binary.LittleEndian
	return header{
		SrcCID:   le.Uint64(b[0:]),
		DstCID:   le.Uint64(b[8:]),
		SrcPort:  le.Uint32(b[16:]),
		DstPort:  le.Uint32(b[20:]),
		Len:      le.Uint32(b[24:]),
		Type:     le.Uint16(b[28:]),
		Op:       le.Uint16(b[30:]),
		Flags:    le.Uint32(b[32:]),
		BufAlloc: le.Uint32(b[36:]),
		FwdCnt:   le.Uint32(b[40:]),
	}
}

// encode writes h to b.
func (h *header) encode(b *[headerLen]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.SrcCID)
	le.PutUint64(b[8:], h.DstCID)
	le.PutUint32(b[16:], h.SrcPort)
	le.PutUint32(b[20:], h.DstPort)
	le.PutUint32(b[24:], h.Len)
	le.PutUint16(b[28:], h.Type)
	le.PutUint16(b[30:], h.Op)
	le.PutUint32(b[32:], h.Flags)
	le.PutUint32(b[36:], h.BufAlloc)
	le.PutUint32(b[40:], h.FwdCnt)
}

var opNames = [...]string{"INVALID", "REQUEST", "RESPONSE", "RST", "SHUTDOWN", "RW", "CREDIT_UPDATE", "CREDIT_REQUEST"}

// String formats the header for logs.
func (h *header) String() string {
	op := fmt.Sprintf("op %d", h.Op)
	if int(h.Op) < len(opNames) {
		op = opNames[h.Op]
	}
	return fmt.Sprintf("%s %d:%d->%d:%d len=%d type=%d flags=%#x", op, h.SrcCID, h.SrcPort, h.DstCID, h.DstPort, h.Len, h.Type, h.Flags)
}

// credit returns how many bytes may be sent to a peer whose buffer has alloc bytes and that
// has taken fwd of the sent bytes out of it. The counters wrap. A peer that claims to have
// taken more than was sent gets none.
func credit(alloc, sent, fwd uint32) uint32 {
	used := sent - fwd
	if used >= alloc {
		return 0
	}
	return alloc - used
}
