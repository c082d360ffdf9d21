package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxKernel bounds what a kernel may unpack to: Debian's is about 60 MB.
const maxKernel = 512 << 20

// unpackKernel returns the kernel inside a vmlinuz as a loader wants it that
// does not unpack: ELF for amd64 (booted through PVH), Image for arm64. The VM
// then need not decompress it, which costs an emulated CPU over a second.
func unpackKernel(arch string, vmlinuz []byte) ([]byte, error) {
	switch arch {
	case "amd64":
		return unpackBzImage(vmlinuz)
	case "arm64":
		return unpackImage(vmlinuz)
	}
	return nil, fmt.Errorf("unpack kernel: no recipe for %s", arch)
}

// unpackBzImage takes the ELF kernel out of an x86 bzImage. The fields of its
// header are described in the kernel's Documentation/arch/x86/boot.rst.
func unpackBzImage(b []byte) ([]byte, error) {
	const (
		setupSects    = 0x1f1 // u8, 0 means 4
		magic         = 0x202 // "HdrS"
		version       = 0x206 // u16
		payloadOffset = 0x248 // u32, counted from the protected-mode code
		payloadLength = 0x24c // u32
		headerEnd     = 0x250
	)
	if len(b) < headerEnd || string(b[magic:magic+4]) != "HdrS" {
		return nil, errors.New("unpack kernel: not a bzImage")
	}
	if v := binary.LittleEndian.Uint16(b[version:]); v < 0x208 {
		return nil, fmt.Errorf("unpack kernel: boot protocol %#x is too old to say where the kernel is", v)
	}
	sects := uint64(b[setupSects])
	if sects == 0 {
		sects = 4
	}
	start := (sects+1)*512 + uint64(binary.LittleEndian.Uint32(b[payloadOffset:]))
	end := start + uint64(binary.LittleEndian.Uint32(b[payloadLength:]))
	if start >= end || end > uint64(len(b)) {
		return nil, fmt.Errorf("unpack kernel: payload %d to %d lies outside the %d bytes of the file", start, end, len(b))
	}
	kernel, err := decompress(b[start:end])
	if err != nil {
		return nil, fmt.Errorf("unpack kernel: %w", err)
	}
	if !bytes.HasPrefix(kernel, []byte("\x7fELF")) {
		return nil, errors.New("unpack kernel: the payload is no ELF file")
	}
	return kernel, nil
}

// unpackImage takes the arm64 Image out of a vmlinuz: it is one, or is
// compressed with gzip, or is an EFI application with the Image inside
// (CONFIG_EFI_ZBOOT, the kernel's drivers/firmware/efi/libstub/zboot-header.S).
func unpackImage(b []byte) ([]byte, error) {
	const magic = 0x38
	isImage := func(b []byte) bool { return len(b) > magic+4 && string(b[magic:magic+4]) == "ARM\x64" }
	if isImage(b) {
		return b, nil
	}
	payload := b
	if len(b) > 0x40 && string(b[:2]) == "MZ" && string(b[4:8]) == "zimg" {
		start := uint64(binary.LittleEndian.Uint32(b[8:]))
		end := start + uint64(binary.LittleEndian.Uint32(b[12:]))
		if start >= end || end > uint64(len(b)) {
			return nil, fmt.Errorf("unpack kernel: payload %d to %d lies outside the %d bytes of the file", start, end, len(b))
		}
		payload = b[start:end]
	}
	image, err := decompress(payload)
	if err != nil {
		return nil, fmt.Errorf("unpack kernel: %w", err)
	}
	if !isImage(image) {
		return nil, errors.New("unpack kernel: neither an arm64 Image nor one compressed")
	}
	return image, nil
}

// decompress unpacks a kernel's payload, told apart by its first bytes. The
// kernel's build appends the unpacked length to some formats, so what follows
// the first stream is ignored.
func decompress(b []byte) ([]byte, error) {
	var r io.Reader
	switch {
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return decompressZstd(b)
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		z.Multistream(false)
		r = z
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		z, err := xz.ReaderConfig{SingleStream: true}.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		r = z
	default:
		return nil, fmt.Errorf("unknown compression (starts with % x)", b[:min(6, len(b))])
	}
	return readAtMost(r, maxKernel)
}

// decompressZstd unpacks one zstd frame, which the kernel's build follows with
// its unpacked length in four bytes.
func decompressZstd(b []byte) ([]byte, error) {
	out, err := readZstd(b[:len(b)-4])
	if err == nil && uint64(len(out)) != uint64(binary.LittleEndian.Uint32(b[len(b)-4:])) {
		err = errors.New("the unpacked length is not the one noted")
	}
	return out, err
}

func readZstd(b []byte) ([]byte, error) {
	// The window is as large as the content with zstd --ultra.
	z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderMaxWindow(maxKernel), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return readAtMost(z, maxKernel)
}

func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return b, nil
}
