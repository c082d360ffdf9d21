// Package virtionet has the types of the frames that a VM's network card and the network
// on the host exchange. Hypervisors, networks and all between them import it, so that
// they need not import each other.
//
// A hypervisor moves frames in one of two ways: over a connection, with a [Framing], or
// in the guest's memory, through a [Card] and its [Receiver].
package virtionet

// Framing says how Ethernet frames follow each other on a connection.
type Framing int

const (
	Stream   Framing = iota // each frame after its length in 4 bytes, big-endian
	Datagram                // one bare frame per datagram
)

// HeaderLen is the length in bytes of the header before each frame of a [Card]: struct
// virtio_net_hdr of virtio 1.2, section 5.1.6. It says what the receiver has to do about
// the frame: complete its checksum, divide it into segments.
const HeaderLen = 12

// Offsets of the header's fields. Those of 16 bits are little-endian.
const (
	Flags      = 0 // 8 bits
	GSOType    = 1 // 8 bits
	HdrLen     = 2 // 16 bits, as all that follow
	GSOSize    = 4
	CsumStart  = 6
	CsumOffset = 8
	NumBuffers = 10 // which the card fills in
)

// Values of the header's fields.
const (
	NeedsCsum = 1 // in Flags
	GSOTCPv4  = 1 // in GSOType
)

// Card is the host's end of a network card that exchanges frames in the guest's
// memory. It is safe for concurrent use.
type Card interface {
	// Send gives the guest a frame with its header. The parts make up both together;
	// the first part holds the whole header, whose field NumBuffers the card fills in.
	// It never waits and keeps no part. It returns false when the guest has no room
	// for the frame: [Receiver.Room] is called once there is some. While the guest has
	// no driver for the card, frames are dropped; while the guest is halted, there is no room.
	Send(parts ...[]byte) bool
}

// Receiver takes the frames that a guest sends through a [Card]. Receive and Flush
// are called by one goroutine, Room by another, and none of them may wait. All three may
// call [Card.Send]: the card holds no lock meanwhile that its Send takes.
type Receiver interface {
	// Receive takes a frame with its header. The parts are the guest's memory: they
	// are valid during the call only, and may change at any time. Nobody has checked
	// their length or content.
	Receive(parts [][]byte)
	// Flush is called when there are no more frames for now.
	Flush()
	// Room is called after a Send has returned false, once the guest has room again.
	Room()
}
