package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

const (
	protoMQ       = 1 << 0
	protoReplyAck = 1 << 3
	protoConfig   = 1 << 9
	protoReset    = 1 << 13
	protoMemSlots = 1 << 15
	protoFeatures = protoMQ | protoReplyAck | protoReset | protoMemSlots
)

// session is one front-end's connection. It belongs to Serve's goroutine.
type session struct {
	d     *Device
	conn  *net.UnixConn
	fds   []int // descriptors of the current message that were not taken over
	mem   *guestMemory
	feats uint64
	proto uint64
}

// run answers messages until the connection fails.
func (s *session) run() error {
	for {
		m, err := s.receive()
		if err == nil {
			err = s.handle(&m)
		}
		s.closeFDs()
		if err != nil {
			return err
		}
	}
}

// end stops the rings and unmaps the guest's memory. It first takes all that the guest has
// sent.
func (s *session) end() {
	for _, q := range s.d.cfg.Queues {
		q.drain()
	}
	for _, q := range s.d.cfg.Queues {
		q.close()
	}
	s.mem.unmap(nil)
}

func (s *session) closeFDs() {
	for _, fd := range s.fds {
		_ = unix.Close(fd)
	}
	s.fds = s.fds[:0]
}

// takeFD returns the message's only descriptor, or -1.
func (s *session) takeFD() int {
	if len(s.fds) == 0 {
		return -1
	}
	fd := s.fds[0]
	s.fds = s.fds[:0]
	return fd
}

// receive reads one message and its descriptors.
func (s *session) receive() (message, error) {
	raw, err := s.receiveRaw()
	if err != nil {
		return message{}, err
	}
	le := binary.LittleEndian
	return decodeMessage(le.Uint32(raw), le.Uint32(raw[4:]), raw[msgHeaderLen:], len(s.fds))
}

// receiveRaw reads one message with its header, which is checked.
func (s *session) receiveRaw() ([]byte, error) {
	var raw [msgHeaderLen]byte
	if err := s.readFull(raw[:]); err != nil {
		return nil, err
	}
	_, _, size, err := decodeMsgHeader(&raw)
	if err != nil {
		return nil, err
	}
	m := append(raw[:], make([]byte, size)...)
	if err := s.readFull(m[msgHeaderLen:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return m, nil
}

// readFull fills p, and collects the descriptors that come with the bytes.
func (s *session) readFull(p []byte) error {
	oob := make([]byte, unix.CmsgSpace(4*maxTableRegions))
	for len(p) > 0 {
		n, oobn, flags, _, err := s.conn.ReadMsgUnix(p, oob)
		if oobn > 0 {
			if err := s.collectFDs(oob[:oobn]); err != nil {
				return err
			}
		}
		switch {
		case err != nil:
			return err
		case flags&unix.MSG_CTRUNC != 0 || len(s.fds) > maxTableRegions:
			return fmt.Errorf("%w: too many descriptors", errMessage)
		case n == 0:
			return io.EOF
		}
		p = p[n:]
	}
	return nil
}

// collectFDs takes the descriptors out of control messages. They are close-on-exec already.
func (s *session) collectFDs(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("%w: control message: %w", errMessage, err)
	}
	for i := range msgs {
		// Other kinds, such as credentials, carry no descriptors.
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			s.fds = append(s.fds, fds...)
		}
	}
	return nil
}

// handle acts on a message and answers it. An error ends the session.
func (s *session) handle(m *message) error {
	switch m.Request {
	case msgGetFeatures:
		return s.replyU64(m, s.d.features)
	case msgGetProtocolFeatures:
		return s.replyU64(m, s.d.protocol)
	case msgGetQueueNum:
		return s.replyU64(m, s.d.cfg.MaxQueues)
	case msgGetMaxMemSlots:
		return s.replyU64(m, maxRegions)
	case msgGetConfig:
		return s.replyConfig(m)
	case msgGetVringBase:
		return s.getVringBase(m)
	}
	err := s.apply(m)
	if err != nil {
		s.d.log.Error(s.d.cfg.Name+": vhost-user request failed", "request", m.Request, "err", err)
	}
	if m.Flags&msgNeedReply == 0 || s.proto&protoReplyAck == 0 {
		return err // nobody would report it otherwise
	}
	if err != nil {
		return s.replyU64(m, 1)
	}
	return s.replyU64(m, 0)
}

// apply acts on a message without an answer of its own.
func (s *session) apply(m *message) error {
	switch m.Request {
	case msgSetFeatures:
		return s.setFeatures(m.Num)
	case msgSetProtocolFeatures:
		if m.Num&^s.d.protocol != 0 {
			return fmt.Errorf("protocol features %#x were not offered", m.Num&^s.d.protocol)
		}
		s.proto = m.Num
	case msgSetOwner:
	case msgResetOwner, msgResetDevice:
		s.reset()
	case msgSetMemTable:
		return s.setMemTable(m.Regions)
	case msgAddMemReg:
		return s.addRegion(m.Regions[0])
	case msgRemMemReg:
		return s.removeRegion(m.Regions[0])
	case msgSetConfig:
		return errors.New("the configuration is read-only")
	default:
		return s.applyVring(m)
	}
	return nil
}

func (s *session) setFeatures(f uint64) error {
	if f&^s.d.features != 0 {
		return fmt.Errorf("features %#x were not offered", f&^s.d.features)
	}
	s.feats = f
	if f&featureProtocol == 0 { // then SET_VRING_ENABLE is not sent
		for _, q := range s.d.cfg.Queues {
			q.enabled = true
		}
	}
	return nil
}

func (s *session) reply(m *message, payload []byte) error {
	_, err := s.conn.Write(encodeReply(m.Request, payload))
	return err
}

func (s *session) replyU64(m *message, v uint64) error {
	return s.reply(m, binary.LittleEndian.AppendUint64(nil, v))
}

// replyConfig answers with a part of the configuration space. It reads as zero beyond the
// device's part.
func (s *session) replyConfig(m *message) error {
	if m.ConfigOffset > maxConfigLen {
		return s.reply(m, nil) // the protocol's refusal
	}
	le := binary.LittleEndian
	var space [2 * maxConfigLen]byte
	copy(space[:], s.d.cfg.Space)
	p := le.AppendUint32(nil, m.ConfigOffset)
	p = le.AppendUint32(p, m.ConfigSize)
	p = le.AppendUint32(p, 0)
	return s.reply(m, append(p, space[m.ConfigOffset:m.ConfigOffset+m.ConfigSize]...))
}
