//go:build !amd64 && !arm64

package guestimage

import "embed"

var embedded embed.FS // no guest is built for this architecture
