//go:build unix

package atomicfile

import "os"

// syncDir makes a rename last through a power cut, where the file system can.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}
