package vz

import (
	"fmt"
	"os"
	"slices"

	"github.com/lsub/lsub/hint"
)

// KernelFormat is a kind of kernel file.
type KernelFormat string

// The formats of kernels. The framework boots the first on Apple silicon and the second on
// Intel; the third is for its stand-in.
const (
	KernelImage   KernelFormat = "arm64 Image"  // Documentation/arch/arm64/booting.rst
	KernelBzImage KernelFormat = "x86 bzImage"  // Documentation/arch/x86/boot.rst
	KernelELF     KernelFormat = "ELF vmlinux"  // Documentation/arch/x86/boot.rst, PVH
	kernelGzip    KernelFormat = "gzip archive" // in which some distributions ship the Image
)

// magics are bytes by which a kernel file is known, and where they are.
var magics = []struct {
	at     int
	magic  string
	format KernelFormat
}{
	{0x38, "ARM\x64", KernelImage},
	{0x202, "HdrS", KernelBzImage},
	{0, "\x7fELF", KernelELF},
	{0, "\x1f\x8b", kernelGzip},
}

// checkKernel returns why the framework cannot boot a file, or nil. Of such a one, the
// framework says that the VM has failed to start, or nothing at all.
func checkKernel(path string, want []KernelFormat) error {
	if err := checkFile("kernel", path, true); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	defer f.Close()
	for _, m := range magics {
		b := make([]byte, len(m.magic))
		if n, _ := f.ReadAt(b, int64(m.at)); n < len(b) || string(b) != m.magic {
			continue
		}
		if slices.Contains(want, m.format) {
			return nil
		}
		return hint.New(fmt.Errorf("kernel %s: the framework does not boot an %s here", path, m.format),
			fmt.Sprintf("it takes an %s", want[0]))
	}
	return fmt.Errorf("kernel %s: it is no Linux kernel", path)
}
