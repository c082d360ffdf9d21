//go:build unix

package machine

import "os"

// syncDir makes a rename last through a power cut. Where the file system
// cannot, the file is as safe as that file system makes it.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}
