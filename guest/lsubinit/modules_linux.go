package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// moduleOrder is /modules/order: the modules of the initramfs by group.
type moduleOrder map[string][]string

func readOrder() (moduleOrder, error) {
	b, err := os.ReadFile("/modules/order")
	if err != nil {
		return nil, err
	}
	o := moduleOrder{}
	for line := range strings.Lines(string(b)) {
		group, path, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && group != "" && group[0] != '#' {
			o[group] = append(o[group], path)
		}
	}
	return o, nil
}

// load loads a group's modules in order. One that is loaded or built in already
// is fine, and so is one for hardware that this machine lacks: some are there
// to be faster than others.
func (o moduleOrder) load(group string) error {
	for _, path := range o[group] {
		if err := loadModule(path); err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
