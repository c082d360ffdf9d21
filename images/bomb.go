package images

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/rootfs"
)

// maxRatio is how many times its size an archive may unpack to. Root file
// systems come to 3 to 10 times; gzip reaches 1000, and xz and zstd more, with
// nothing but zeros.
const maxRatio = 200

// bombFloor is what any archive may unpack to, however small it is: 4 GiB with
// the usual limit.
func bombFloor(maxBytes int64) int64 {
	if maxBytes == 0 {
		maxBytes = rootfs.DefaultMaxBytes
	}
	return maxBytes / 64
}

// bombError says that an archive grows out of proportion.
type bombError struct{ plain int64 }

func (e *bombError) Error() string {
	return fmt.Sprintf("grows to more than %d times its size, and over %d MiB: no root file system does", maxRatio, e.plain>>20)
}

// packedLimits are the limits of an archive that takes packed bytes: what its
// headers say it holds has to be in proportion, so that a bomb is known before
// it is unpacked. Holes of sparse files do not count.
func packedLimits(maxBytes, packed int64) *rootfs.State {
	if maxBytes == 0 {
		maxBytes = rootfs.DefaultMaxBytes
	}
	if packed < maxBytes/maxRatio {
		maxBytes = max(packed*maxRatio, bombFloor(maxBytes))
	}
	return &rootfs.State{MaxBytes: maxBytes}
}

// outOfProportion returns the error of an archive that went over packedLimits:
// those that only it has are told as what they are.
func outOfProportion(err error, limits *rootfs.State, maxBytes int64) error {
	if maxBytes == 0 {
		maxBytes = rootfs.DefaultMaxBytes
	}
	var limit *rootfs.LimitError
	if errors.As(err, &limit) && limit.What == "bytes" && limit.Limit == limits.MaxBytes && limit.Limit < maxBytes {
		return bomb(limit.Limit)
	}
	return err
}

func bomb(plain int64) error {
	return hint.New(&bombError{plain}, "if you know better, decompress it yourself and install that")
}

// guarded ends what an archive unpacks to with a bombError where that is out of
// proportion to what was read of it.
type guarded struct {
	io.ReadCloser
	in    *atomic.Int64
	out   int64
	floor int64
}

func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.ReadCloser.Read(p)
	if g.out += int64(n); g.out > g.floor && g.out/maxRatio > g.in.Load() {
		return 0, bomb(g.out)
	}
	return n, err
}

// decompressGuarded is decompress for an archive that nobody vouches for.
func decompressGuarded(r io.Reader, maxBytes int64) (io.ReadCloser, error) {
	in := new(atomic.Int64) // zstd reads ahead in a goroutine of its own
	z, err := decompress(&countReader{r, func(n int64) { in.Add(n) }})
	if err != nil {
		return nil, err
	}
	return &guarded{ReadCloser: z, in: in, floor: bombFloor(maxBytes)}, nil
}
