// Package connbuf has receive buffers and deadlines for net.Conn types that are not
// sockets. Nothing in it locks: the connection's own lock guards both.
package connbuf

import (
	"math/bits"
	"sync"
)

const (
	minBits = 12 // 4 KiB
	maxBits = 24
)

// MaxBuffer is the most bytes that a [Buffer] may hold: 16 MiB.
const MaxBuffer = 1 << maxBits

// bufferPools hold the arrays of empty buffers by power of two. So bulk streams make
// no garbage, and idle ones hold no memory.
var bufferPools [maxBits + 1]sync.Pool

// Buffer is a ring of bytes. It grows by doubling as bytes are appended, and holds no
// memory while it is empty. The zero value is ready to use.
type Buffer struct {
	arr  *[]byte // length is a power of two; nil when empty
	head int     // index of the first byte
	n    int     // bytes held
	lent bool    // a slice from Lend is in use: arr must not be reused
}

// Len returns the number of bytes in the buffer.
func (b *Buffer) Len() int { return b.n }

// GetArray returns an array of at least size bytes, which is at most [MaxBuffer]. The
// caller gives it to [PutArray].
func GetArray(size int) *[]byte {
	k := max(bits.Len(uint(size-1)), minBits)
	if a, _ := bufferPools[k].Get().(*[]byte); a != nil {
		return a
	}
	a := make([]byte, 1<<k)
	return &a
}

// PutArray takes back an array of [GetArray].
func PutArray(a *[]byte) { bufferPools[bits.Len(uint(len(*a)-1))].Put(a) }

// Append appends the first n bytes of iov. The caller makes sure that the buffer never
// holds more than [MaxBuffer].
func (b *Buffer) Append(iov [][]byte, n int) {
	if n == 0 {
		return
	}
	if b.arr == nil || b.n+n > len(*b.arr) {
		b.grow(b.n + n)
	}
	arr := *b.arr
	for _, p := range iov {
		p = p[:min(len(p), n)]
		n -= len(p)
		at := (b.head + b.n) & (len(arr) - 1)
		c := copy(arr[at:], p)
		copy(arr, p[c:])
		b.n += len(p)
	}
}

func (b *Buffer) grow(size int) {
	arr := GetArray(size)
	if b.arr != nil {
		c := copy(*arr, (*b.arr)[b.head:min(b.head+b.n, len(*b.arr))])
		copy((*arr)[c:], (*b.arr)[:b.n-c])
		if !b.lent { // else the garbage collector has it when the lender is done
			PutArray(b.arr)
		}
	}
	b.arr, b.head, b.lent = arr, 0, false
}

// Take moves as many bytes as fit to p, and returns their number.
func (b *Buffer) Take(p []byte) int {
	total := 0
	for len(p) > 0 && b.n > 0 {
		c := copy(p, b.peek())
		b.Consume(c)
		p, total = p[c:], total+c
	}
	return total
}

// Lend returns the longest contiguous run of bytes at the front. They stay valid until
// Return, even if the buffer is appended to, consumed or reset meanwhile.
func (b *Buffer) Lend() []byte {
	b.lent = true
	return b.peek()
}

// Return ends the use of the slice that Lend has returned.
func (b *Buffer) Return() { b.lent = false }

func (b *Buffer) peek() []byte {
	return (*b.arr)[b.head:min(b.head+b.n, len(*b.arr))]
}

// Consume drops the first n bytes; the buffer holds as many.
func (b *Buffer) Consume(n int) {
	b.n -= n
	if b.n == 0 {
		b.Reset()
		return
	}
	b.head = (b.head + n) & (len(*b.arr) - 1)
}

// Reset drops all bytes and gives the memory back.
func (b *Buffer) Reset() {
	if b.arr != nil && !b.lent {
		PutArray(b.arr)
	}
	b.arr, b.head, b.n, b.lent = nil, 0, 0, false
}
