package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// install measures the first install of an image that is in the cache, in a VM
// that runs, and further ones.
func (b *bench) install() error {
	if err := b.main.debian(); err != nil { // which builds the image where it is not in the cache
		return err
	}
	if err := b.main.shutdown(); err != nil {
		return err
	}
	var first, rate, second samples
	size := imageSize("debian-trixie-" + runtime.GOARCH)
	for i := range b.times(3, 1) {
		h, err := b.newHome(fmt.Sprintf("install%d", i))
		if err != nil {
			return err
		}
		if err := h.tiny(); err != nil {
			return err
		}
		d, err := h.lsub("install", "debian")
		if err != nil {
			return err
		}
		first.add(d)
		if size > 0 {
			rate = append(rate, float64(size)/1e6/d.Seconds())
		}
		for k := range 3 {
			d, err := h.lsub("install", "debian", "--name", fmt.Sprintf("again%d", k))
			if err != nil {
				return err
			}
			second.add(d)
		}
		if err := h.shutdown(); err != nil {
			return err
		}
	}
	b.report.figure("install: debian for the first time, from the cache", "ms", first)
	if size > 0 {
		b.report.figure(fmt.Sprintf("… a tar archive of %d MiB", size>>20), "MB/s", rate)
	}
	b.report.figure("install: debian again, under another name", "ms", second).Aim = 1000
	return nil
}

// imageSize is the size in bytes of a cached image's archive, uncompressed; 0
// where it is not known.
func imageSize(key string) int64 {
	dir, err := os.UserCacheDir()
	if err != nil {
		return 0
	}
	var record struct {
		Size int64 `json:"size"`
	}
	if json.Unmarshal([]byte(content(filepath.Join(dir, "lsub/images", key+".json"))), &record) != nil {
		return 0
	}
	return record.Size
}
