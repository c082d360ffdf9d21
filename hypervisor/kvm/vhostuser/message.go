package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Requests of the vhost-user protocol that a vsock device can meet. Source:
// QEMU, docs/interop/vhost-user.rst, "Front-end message types".
const (
	msgGetFeatures         = 1
	msgSetFeatures         = 2
	msgSetOwner            = 3
	msgResetOwner          = 4
	msgSetMemTable         = 5
	msgSetVringNum         = 8
	msgSetVringAddr        = 9
	msgSetVringBase        = 10
	msgGetVringBase        = 11
	msgSetVringKick        = 12
	msgSetVringCall        = 13
	msgSetVringErr         = 14
	msgGetProtocolFeatures = 15
	msgSetProtocolFeatures = 16
	msgGetQueueNum         = 17
	msgSetVringEnable      = 18
	msgGetConfig           = 24
	msgSetConfig           = 25
	msgResetDevice         = 34
	msgGetMaxMemSlots      = 36
	msgAddMemReg           = 37
	msgRemMemReg           = 38
)

// Fields of a message's flags.
const (
	msgVersionMask = 0x3
	msgVersion     = 0x1
	msgReply       = 1 << 2
	msgNeedReply   = 1 << 3
)

const (
	msgHeaderLen = 12
	// maxMsgLen bounds a payload. The largest known one is a configuration space of 256 bytes
	// with its header.
	maxMsgLen = 512
	// maxTableRegions is the number of regions that SET_MEM_TABLE can carry.
	maxTableRegions = 8
	// maxRegions is the number of memory slots offered for ADD_MEM_REG.
	maxRegions = 64
	regionLen  = 32
	// maxConfigLen is the size of the configuration space in the protocol.
	maxConfigLen = 256
	// vringNoFD in the payload of SET_VRING_KICK, CALL and ERR says that the message has no
	// descriptor.
	vringNoFD = 1 << 8
)

// memRegion is one piece of guest memory, as the front-end describes it.
type memRegion struct {
	GuestAddr, Size, UserAddr, MmapOffset uint64
}

// message is a decoded request. Request determines which fields are set.
type message struct {
	Request, Flags uint32
	Num            uint64 // features, or the vring's NUM, BASE, ENABLE value
	Index          uint32 // the vring
	NoFD           bool   // KICK, CALL, ERR
	Desc, Used     uint64 // SET_VRING_ADDR, in the front-end's address space
	Avail          uint64
	Regions        []memRegion // SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG
	ConfigOffset   uint32
	ConfigSize     uint32
}

var errMessage = errors.New("malformed vhost-user message")

// decodeMsgHeader decodes the 12 bytes before each payload and checks the
// version and the length.
func decodeMsgHeader(b *[msgHeaderLen]byte) (request, flags, size uint32, err error) {
	le := binary.LittleEndian
	request, flags, size = le.Uint32(b[0:]), le.Uint32(b[4:]), le.Uint32(b[8:])
	if flags&msgVersionMask != msgVersion || flags&msgReply != 0 {
		return 0, 0, 0, fmt.Errorf("%w: request %d has flags %#x", errMessage, request, flags)
	}
	if size > maxMsgLen {
		return 0, 0, 0, fmt.Errorf("%w: request %d has %d bytes", errMessage, request, size)
	}
	return request, flags, size, nil
}

// decodeMessage decodes a request's payload. It checks the payload's length and the number of
// descriptors. An unknown request is an error: a front-end may send only requests that we
// offered.
func decodeMessage(request, flags uint32, payload []byte, fds int) (message, error) {
	m := message{Request: request, Flags: flags}
	wantFDs := 0
	var err error
	switch request {
	case msgGetFeatures, msgSetOwner, msgResetOwner, msgResetDevice, msgGetProtocolFeatures,
		msgGetQueueNum, msgGetMaxMemSlots:
		// The protocol defines no payload, but QEMU sends one for some: ignored.
	case msgSetFeatures, msgSetProtocolFeatures:
		m.Num, err = decodeU64(request, payload)
	case msgSetVringNum, msgSetVringBase, msgGetVringBase, msgSetVringEnable:
		err = m.decodeState(payload)
	case msgSetVringAddr:
		err = m.decodeAddr(payload)
	case msgSetVringKick, msgSetVringCall, msgSetVringErr:
		var v uint64
		v, err = decodeU64(request, payload)
		m.Index, m.NoFD = uint32(v&0xff), v&vringNoFD != 0
		if !m.NoFD {
			wantFDs = 1
		}
	case msgSetMemTable:
		err = m.decodeMemTable(payload)
		wantFDs = len(m.Regions)
	case msgAddMemReg, msgRemMemReg:
		err = m.decodeMemReg(payload)
		if request == msgAddMemReg || fds == 1 { // some front-ends send one to remove, too
			wantFDs = 1
		}
	case msgGetConfig, msgSetConfig:
		err = m.decodeConfig(payload)
	default:
		err = fmt.Errorf("%w: request %d is unknown", errMessage, request)
	}
	if err == nil && fds != wantFDs {
		err = fmt.Errorf("%w: request %d came with %d descriptors, not %d", errMessage, request, fds, wantFDs)
	}
	return m, err
}

func decodeU64(request uint32, b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: request %d has %d bytes, not 8", errMessage, request, len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

// decodeState decodes a vring's index and a number.
func (m *message) decodeState(b []byte) error {
	if len(b) != 8 {
		return fmt.Errorf("%w: request %d has %d bytes, not 8", errMessage, m.Request, len(b))
	}
	m.Index = binary.LittleEndian.Uint32(b)
	m.Num = uint64(binary.LittleEndian.Uint32(b[4:]))
	return nil
}

// decodeAddr decodes the addresses of a vring's three parts. The log address is needed only
// for migration.
func (m *message) decodeAddr(b []byte) error {
	if len(b) != 40 {
		return fmt.Errorf("%w: vring address has %d bytes, not 40", errMessage, len(b))
	}
	le := binary.LittleEndian
	m.Index = le.Uint32(b)
	m.Desc, m.Used, m.Avail = le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])
	return nil
}

func (m *message) decodeMemTable(b []byte) error {
	if len(b) < 8 {
		return fmt.Errorf("%w: memory table has %d bytes", errMessage, len(b))
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxTableRegions || len(b) < 8+int(n)*regionLen {
		return fmt.Errorf("%w: %d bytes for a table of %d regions", errMessage, len(b), n)
	}
	for i := range int(n) {
		m.Regions = append(m.Regions, decodeRegion(b[8+i*regionLen:]))
	}
	return nil
}

func (m *message) decodeMemReg(b []byte) error {
	if len(b) < 8+regionLen {
		return fmt.Errorf("%w: memory region has %d bytes", errMessage, len(b))
	}
	m.Regions = []memRegion{decodeRegion(b[8:])}
	return nil
}

func decodeRegion(b []byte) memRegion {
	le := binary.LittleEndian
	return memRegion{
		GuestAddr:  le.Uint64(b[0:]),
		Size:       le.Uint64(b[8:]),
		UserAddr:   le.Uint64(b[16:]),
		MmapOffset: le.Uint64(b[24:]),
	}
}

func (m *message) decodeConfig(b []byte) error {
	if len(b) < 12 {
		return fmt.Errorf("%w: configuration access has %d bytes", errMessage, len(b))
	}
	le := binary.LittleEndian
	m.ConfigOffset, m.ConfigSize = le.Uint32(b[0:]), le.Uint32(b[4:])
	if m.ConfigSize > maxConfigLen || int(m.ConfigSize) != len(b)-12 {
		return fmt.Errorf("%w: configuration of %d bytes in a payload of %d", errMessage, m.ConfigSize, len(b))
	}
	return nil
}

// encodeReply encodes the answer to a request.
func encodeReply(request uint32, payload []byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, msgHeaderLen, msgHeaderLen+len(payload))
	le.PutUint32(b[0:], request)
	le.PutUint32(b[4:], msgVersion|msgReply)
	le.PutUint32(b[8:], uint32(len(payload)))
	return append(b, payload...)
}
