package main

import (
	"errors"
	"os"
	"path/filepath"
)

// onlineProcessors starts the processors that the kernel has left off, if it boots on one
// (maxcpus=1).
func onlineProcessors() error {
	files, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/online")
	for _, file := range files {
		if on, readErr := os.ReadFile(file); readErr != nil || string(on) == "1\n" {
			err = errors.Join(err, readErr)
			continue
		}
		err = errors.Join(err, os.WriteFile(file, []byte("1"), 0))
	}
	return err
}
