package share

import (
	"encoding/binary"
	"strings"
)

// Requests of FUSE (linux/fuse.h, enum fuse_opcode).
const (
	opLookup        = 1
	opForget        = 2
	opGetattr       = 3
	opSetattr       = 4
	opReadlink      = 5
	opSymlink       = 6
	opMknod         = 8
	opMkdir         = 9
	opUnlink        = 10
	opRmdir         = 11
	opRename        = 12
	opLink          = 13
	opOpen          = 14
	opRead          = 15
	opWrite         = 16
	opStatfs        = 17
	opRelease       = 18
	opFsync         = 20
	opSetxattr      = 21
	opGetxattr      = 22
	opListxattr     = 23
	opRemovexattr   = 24
	opFlush         = 25
	opInit          = 26
	opOpendir       = 27
	opReaddir       = 28
	opReleasedir    = 29
	opFsyncdir      = 30
	opGetlk         = 31
	opSetlk         = 32
	opSetlkw        = 33
	opAccess        = 34
	opCreate        = 35
	opInterrupt     = 36
	opDestroy       = 38
	opBatchForget   = 42
	opFallocate     = 43
	opReaddirplus   = 44
	opRename2       = 45
	opLseek         = 46
	opCopyFileRange = 47
	opSyncfs        = 50
	opTmpfile       = 51
)

// Sizes of structures, in bytes.
const (
	inHeaderLen  = 40
	outHeaderLen = 16
	writeInLen   = 40
	attrLen      = 88
	entryLen     = 40 + attrLen
	direntLen    = 24
	maxName      = 255
	// MaxWrite is the most data of one read or write.
	MaxWrite = 1 << 20
	// maxBody bounds a request besides the data of a write: a value of an extended
	// attribute has 64 KiB at most.
	maxBody = 80 << 10
	// MaxRequest and MaxAnswer bound what a carrier has to hold.
	MaxRequest = inHeaderLen + writeInLen + MaxWrite
	MaxAnswer  = outHeaderLen + MaxWrite
)

// Flags of INIT.
const (
	initAsyncRead     = 1 << 0
	initPosixLocks    = 1 << 1
	initAtomicTrunc   = 1 << 3
	initBigWrites     = 1 << 5
	initFlockLocks    = 1 << 10
	initAutoInval     = 1 << 12
	initReaddirplus   = 1 << 13
	initReaddirAuto   = 1 << 14
	initParallelDir   = 1 << 18
	initMaxPages      = 1 << 22
	initCacheSymlinks = 1 << 23
	initKillPrivV2    = 1 << 28
)

// Flags of other requests and answers.
const (
	getattrFH      = 1 << 0
	openKillSuid   = 1 << 0 // FUSE_OPEN_KILL_SUIDGID, of open
	openKeepCache  = 1 << 1 // FOPEN_KEEP_CACHE, of its answer
	openCacheDir   = 1 << 3 // FOPEN_CACHE_DIR
	openNoFlush    = 1 << 5 // FOPEN_NOFLUSH
	writeKillSuid  = 1 << 2
	fsyncDataOnly  = 1 << 0
	lockFlock      = 1 << 0
	setMode        = 1 << 0
	setUID         = 1 << 1
	setGID         = 1 << 2
	setSize        = 1 << 3
	setAtime       = 1 << 4
	setMtime       = 1 << 5
	setFH          = 1 << 6
	setAtimeNow    = 1 << 7
	setMtimeNow    = 1 << 8
	setKillSuidGid = 1 << 11
)

// header begins each request.
type header struct {
	length uint32
	op     uint32
	unique uint64
	node   uint64
	uid    uint32
	gid    uint32
	pid    uint32 // the thread's number, in the namespace of who has mounted; 0 for the kernel
}

func decodeHeader(b *[inHeaderLen]byte) header {
	le := binary.LittleEndian
	return header{
		length: le.Uint32(b[0:]), op: le.Uint32(b[4:]), unique: le.Uint64(b[8:]), node: le.Uint64(b[16:]),
		uid: le.Uint32(b[24:]), gid: le.Uint32(b[28:]), pid: le.Uint32(b[32:]),
	}
}

// body reads the fields of a request one after the other. What is not there reads as zero,
// and makes the body bad.
type body struct {
	b    []byte
	bad  bool
	long bool // a name is longer than names may be
}

func (b *body) take(n int) []byte {
	if n < 0 || n > len(b.b) {
		b.b, b.bad = nil, true
		return make([]byte, max(n, 0))
	}
	p := b.b[:n]
	b.b = b.b[n:]
	return p
}

func (b *body) u32() uint32 { return binary.LittleEndian.Uint32(b.take(4)) }
func (b *body) u64() uint64 { return binary.LittleEndian.Uint64(b.take(8)) }

// text reads a string that ends with a zero byte.
func (b *body) text() string {
	for i, c := range b.b {
		if c == 0 {
			s := string(b.b[:i])
			b.b = b.b[i+1:]
			return s
		}
	}
	b.b, b.bad = nil, true
	return ""
}

// name reads the name of an entry of a directory. Anything else, such as a path, makes the
// body bad.
func (b *body) name() string {
	s := b.text()
	switch {
	case s == "" || s == "." || s == ".." || strings.Contains(s, "/"):
		b.bad = true
		return ""
	case len(s) > maxName:
		b.long = true
		return ""
	}
	return s
}

// answer collects the payload of an answer.
type answer struct{ b []byte }

func (a *answer) u16(v uint16) { a.b = binary.LittleEndian.AppendUint16(a.b, v) }
func (a *answer) u32(v uint32) { a.b = binary.LittleEndian.AppendUint32(a.b, v) }
func (a *answer) u64(v uint64) { a.b = binary.LittleEndian.AppendUint64(a.b, v) }

// pieces are memory that a carrier lends, in order.
type pieces [][]byte

func (p pieces) size() (n int) {
	for _, b := range p {
		n += len(b)
	}
	return n
}

// from returns at most n bytes of p after the first skip.
func (p pieces) from(skip, n int) pieces {
	var rest pieces
	for _, b := range p {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		b = b[skip:]
		skip = 0
		if n <= 0 {
			break
		}
		b = b[:min(len(b), n)]
		n -= len(b)
		rest = append(rest, b)
	}
	return rest
}

// read copies bytes of p to to, and returns how many.
func (p pieces) read(to []byte) (n int) {
	for _, b := range p {
		n += copy(to[n:], b)
	}
	return n
}

// write copies from to p, and returns how many bytes.
func (p pieces) write(from []byte) (n int) {
	for _, b := range p {
		n += copy(b, from[n:])
	}
	return n
}

// Waits reports whether a request may take long, such as one for a lock. A carrier serves
// it beside the others.
func Waits(request [][]byte) bool {
	var b [8]byte
	if pieces(request).read(b[:]) < len(b) {
		return false
	}
	switch binary.LittleEndian.Uint32(b[4:]) {
	case opSetlkw, opFsync, opFsyncdir, opSyncfs, opFallocate, opCopyFileRange:
		return true
	}
	return false
}

// Fail writes the answer to a request that nobody serves any more: an I/O error. It returns
// the answer's length, 0 for requests that have none.
func Fail(request, answer [][]byte) int {
	var raw [inHeaderLen]byte
	if pieces(request).read(raw[:]) < len(raw) {
		return 0
	}
	h := decodeHeader(&raw)
	if hasNoAnswer(h.op) {
		return 0
	}
	return putHeader(answer, h.unique, -5, 0) // EIO
}

func hasNoAnswer(op uint32) bool {
	return op == opForget || op == opBatchForget || op == opInterrupt
}

// putHeader writes the header of an answer with n bytes of payload.
func putHeader(out pieces, unique uint64, errno int32, n int) int {
	if out.size() < outHeaderLen+n {
		return 0
	}
	le := binary.LittleEndian
	var h [outHeaderLen]byte
	le.PutUint32(h[0:], uint32(outHeaderLen+n))
	le.PutUint32(h[4:], uint32(errno))
	le.PutUint64(h[8:], unique)
	out.write(h[:])
	return outHeaderLen + n
}
