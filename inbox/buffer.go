// Package inbox has what connections are made of that are no sockets: the bytes that
// have come, and the times until which somebody waits. Nothing in it locks: the connection does.
package inbox

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

// bufferPools hold the arrays of emptied buffers by power of two, so that bulk
// streams do not make garbage and idle ones hold no memory.
var bufferPools [maxBits + 1]sync.Pool

// Buffer is a ring of bytes that grows by doubling, up to what its owner puts
// in, and holds no memory while it is empty.
type Buffer struct {
	arr  *[]byte // length is a power of two; nil when empty
	head int     // index of the first byte
	n    int     // bytes held
	lent bool    // a slice from Lend is in use: arr must not be reused
}

// Len returns how many bytes there are.
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

// PutArray takes back what [GetArray] has returned.
func PutArray(a *[]byte) { bufferPools[bits.Len(uint(len(*a)-1))].Put(a) }

// Append appends the first n bytes of iov. Its owner bounds what there is by [MaxBuffer].
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

// Take moves bytes to p, and returns how many.
func (b *Buffer) Take(p []byte) int {
	total := 0
	for len(p) > 0 && b.n > 0 {
		c := copy(p, b.peek())
		b.Consume(c)
		p, total = p[c:], total+c
	}
	return total
}

// Lend returns the first bytes that lie together. They stay where they are, whatever
// happens to the buffer, until Return.
func (b *Buffer) Lend() []byte {
	b.lent = true
	return b.peek()
}

// Return says that what Lend has returned is not in use any more.
func (b *Buffer) Return() { b.lent = false }

func (b *Buffer) peek() []byte {
	return (*b.arr)[b.head:min(b.head+b.n, len(*b.arr))]
}

// Consume drops the first n bytes.
func (b *Buffer) Consume(n int) {
	b.n -= n
	if b.n == 0 {
		b.Reset()
		return
	}
	b.head = (b.head + n) & (len(*b.arr) - 1)
}

// Reset drops all bytes and the memory.
func (b *Buffer) Reset() {
	if b.arr != nil && !b.lent {
		PutArray(b.arr)
	}
	b.arr, b.head, b.n, b.lent = nil, 0, 0, false
}
