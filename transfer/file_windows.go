package transfer

import (
	"io/fs"
	"os"
	"syscall"

	"github.com/lsub/lsub/rootfs/pax"
)

func openFile(name string) (*os.File, error) { return os.Open(name) }

func identity(fs.FileInfo) (fileID, bool) { return fileID{}, false }

func extents(*os.File, fs.FileInfo) ([]pax.Extent, error) { return nil, nil }

const errDiskFull = syscall.Errno(112) // ERROR_DISK_FULL
