package vhostvsock

import (
	"math/bits"
	"sync"
)

const (
	minBufferBits = 12 // 4 KiB
	maxBufferBits = 24 // 16 MiB
)

// bufferPools hold the arrays of emptied buffers by power of two, so that bulk
// streams do not make garbage and idle ones hold no memory.
var bufferPools [maxBufferBits + 1]sync.Pool

// buffer is a ring of bytes that grows by doubling, up to what its owner puts
// in, and holds no memory while it is empty.
type buffer struct {
	arr  *[]byte // length is a power of two; nil when empty
	head int     // index of the first byte
	n    int     // bytes held
	lent bool    // a slice from peek is in use: arr must not be reused
}

func getArray(size int) *[]byte {
	k := max(bits.Len(uint(size-1)), minBufferBits)
	if a, _ := bufferPools[k].Get().(*[]byte); a != nil {
		return a
	}
	a := make([]byte, 1<<k)
	return &a
}

func putArray(a *[]byte) { bufferPools[bits.Len(uint(len(*a)-1))].Put(a) }

// write appends the bytes of iov. The owner bounds n below 1<<maxBufferBits.
func (b *buffer) write(iov [][]byte, n int) {
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

func (b *buffer) grow(size int) {
	arr := getArray(size)
	if b.arr != nil {
		c := copy(*arr, (*b.arr)[b.head:min(b.head+b.n, len(*b.arr))])
		copy((*arr)[c:], (*b.arr)[:b.n-c])
		if !b.lent { // else the garbage collector has it when the lender is done
			putArray(b.arr)
		}
	}
	b.arr, b.head, b.lent = arr, 0, false
}

// read moves bytes to p.
func (b *buffer) read(p []byte) int {
	total := 0
	for len(p) > 0 && b.n > 0 {
		c := copy(p, b.peek())
		b.consume(c)
		p, total = p[c:], total+c
	}
	return total
}

// peek returns the first contiguous bytes.
func (b *buffer) peek() []byte {
	if b.n == 0 {
		return nil
	}
	return (*b.arr)[b.head:min(b.head+b.n, len(*b.arr))]
}

// consume drops the first n bytes.
func (b *buffer) consume(n int) {
	b.n -= n
	if b.n == 0 {
		b.reset()
		return
	}
	b.head = (b.head + n) & (len(*b.arr) - 1)
}

// reset drops all bytes and the memory.
func (b *buffer) reset() {
	if b.arr != nil && !b.lent {
		putArray(b.arr)
	}
	b.arr, b.head, b.n, b.lent = nil, 0, 0, false
}
