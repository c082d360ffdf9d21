package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// queue returns the queue of a vring's index.
func (s *session) queue(index uint32) (*Queue, error) {
	if int64(index) >= int64(len(s.d.cfg.Queues)) {
		return nil, fmt.Errorf("%w: there is no vring %d", errMessage, index)
	}
	return s.d.cfg.Queues[index], nil
}

// start starts the queue if it is complete. The ring's address and size come from the guest,
// so bad ones are the guest's fault and do not end the session.
func (s *session) start(q *Queue) {
	if err := q.start(s.mem, s.feats, s.d.cfg.Required); err != nil {
		s.d.Fail(err)
	}
	s.d.cfg.Backend.Changed()
}

// applyVring acts on a message about one vring.
func (s *session) applyVring(m *message) error {
	q, err := s.queue(m.Index)
	if err != nil {
		return err
	}
	switch m.Request {
	case msgSetVringNum:
		if m.Num == 0 || m.Num > maxRingSize {
			return fmt.Errorf("%w: vring of %d entries", errMessage, m.Num)
		}
		q.num = uint16(m.Num)
	case msgSetVringAddr:
		q.suspend() // the front-end may move a running ring
		q.desc, q.avail, q.used, q.haveAddr = m.Desc, m.Avail, m.Used, true
		s.start(q)
	case msgSetVringBase:
		return s.setVringBase(q, m.Num)
	case msgSetVringKick:
		if m.NoFD {
			return errors.New("a vring without a kick descriptor would have to be polled")
		}
		if err := q.setKick(s.takeFD()); err != nil {
			return err
		}
		s.start(q)
	case msgSetVringCall:
		q.setCall(s.takeFD())
	case msgSetVringErr:
		q.setErr(s.takeFD())
	case msgSetVringEnable:
		if q.enabled = m.Num == 1; !q.enabled {
			q.suspend()
		}
		s.start(q)
	default:
		return fmt.Errorf("%w: request %d", errMessage, m.Request)
	}
	return nil
}

// setVringBase sets the ring's next position. A paused VM continues where it stopped. Any
// other position means that the driver was reset and has lost all state.
func (s *session) setVringBase(q *Queue, base uint64) error {
	if base > 1<<16-1 {
		return fmt.Errorf("%w: vring base %d", errMessage, base)
	}
	q.suspend()
	if q.stopped && q.base != uint16(base) {
		s.d.cfg.Backend.Restart()
	}
	q.base = uint16(base)
	return nil
}

// getVringBase stops a vring and answers with its position. It first takes all that the guest
// has sent: a guest may be powering off.
func (s *session) getVringBase(m *message) error {
	q, err := s.queue(m.Index)
	if err != nil {
		return err
	}
	q.drain()
	q.stop()
	q.inflight.end()
	q.stopped = true
	s.d.broken.Store(false) // the ring's memory is not read until it is set up anew
	le := binary.LittleEndian
	return s.reply(m, le.AppendUint32(le.AppendUint32(nil, m.Index), uint32(q.base)))
}

// reset returns all queues to their initial state.
func (s *session) reset() {
	for _, q := range s.d.cfg.Queues {
		q.stop()
		q.inflight.end()
		q.haveAddr, q.base, q.stopped = false, 0, false
		q.enabled = s.feats&featureProtocol == 0
	}
	s.d.broken.Store(false)
	s.d.cfg.Backend.Restart()
}

// setMemTable replaces the guest's memory.
func (s *session) setMemTable(regions []memRegion) error {
	mem := &guestMemory{}
	for i, r := range regions {
		if err := mem.mapMore(r, s.fds[i]); err != nil {
			mem.unmap(nil)
			return err
		}
	}
	return s.setMemory(mem)
}

// addRegion adds a piece of memory.
func (s *session) addRegion(r memRegion) error {
	if len(s.mem.regions) >= maxRegions {
		return fmt.Errorf("more than %d memory regions", maxRegions)
	}
	mem := &guestMemory{regions: append([]region(nil), s.mem.regions...)}
	if err := mem.mapMore(r, s.fds[0]); err != nil {
		return err
	}
	return s.setMemory(mem)
}

// removeRegion removes a piece of memory.
func (s *session) removeRegion(r memRegion) error {
	mem := &guestMemory{}
	for _, have := range s.mem.regions {
		if have.GuestAddr != r.GuestAddr || have.Size != r.Size || have.UserAddr != r.UserAddr {
			mem.regions = append(mem.regions, have)
		}
	}
	if len(mem.regions) == len(s.mem.regions) {
		return fmt.Errorf("there is no memory region %+v", r)
	}
	return s.setMemory(mem)
}

// setMemory makes all rings use mem and unmaps the rest. A ring outside mem waits for the
// memory or address that it needs.
func (s *session) setMemory(mem *guestMemory) error {
	for _, q := range s.d.cfg.Queues {
		q.suspend() // after this, nothing touches the old memory
	}
	old := s.mem
	s.mem = mem
	old.unmap(mem)
	for _, q := range s.d.cfg.Queues {
		if err := q.start(mem, s.feats, s.d.cfg.Required); err != nil {
			s.d.log.Debug(s.d.cfg.Name+": a ring waits for memory", "err", err)
		}
	}
	s.d.cfg.Backend.Changed()
	return nil
}
