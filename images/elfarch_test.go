package images

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/lsub/lsub/hint"
)

// program is the beginning of one for a machine.
func program(machine elf.Machine, data elf.Data) string {
	head := append([]byte(elf.ELFMAG), byte(elf.ELFCLASS64), byte(data), byte(elf.EV_CURRENT), 0, 0, 0, 0, 0, 0, 0, 0, 0)
	var order binary.AppendByteOrder = binary.LittleEndian
	if data == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	head = order.AppendUint16(head, uint16(elf.ET_DYN))
	return string(order.AppendUint16(head, uint16(machine))) + strings.Repeat("\x00", 100)
}

// TestWrongMachine has every source give archives whose programs are for some
// machine, whatever they or the lists that name them say.
func TestWrongMachine(t *testing.T) {
	const lsb, msb = elf.ELFDATA2LSB, elf.ELFDATA2MSB
	here, other, name := elf.EM_X86_64, elf.EM_AARCH64, "arm64"
	if runtime.GOARCH == "arm64" {
		here, other, name = other, here, "amd64"
	}
	type files []string // names and what they have in turn
	foreign := "is for " + name + ", not for " + runtime.GOARCH
	for what, tt := range map[string]struct {
		files files
		want  string
	}{
		"this machine's":         {files{"bin/bash", program(here, lsb)}, ""},
		"scripts":                {files{"bin/sh", "#!/bin/true, and more of it"}, ""},
		"an empty shell":         {files{"bin/sh", ""}, ""},
		"another's":              {files{"usr/bin/dash", program(other, lsb), "usr/bin/sh", "#!/usr/bin/dash and no more"}, foreign + ", as its /usr/bin/dash shows"},
		"another's init":         {files{"usr/lib/systemd/systemd", program(other, lsb)}, foreign},
		"busybox":                {files{"bin/busybox", program(other, lsb)}, foreign},
		"the other way round":    {files{"bin/sh", program(elf.EM_S390, msb)}, "is for s390x, not for " + runtime.GOARCH},
		"nobody's":               {files{"bin/sh", program(elf.EM_VAX, lsb)}, "is for machine 75, not for " + runtime.GOARCH},
		"an emulated one beside": {files{"bin/bash", program(here, lsb), "bin/busybox", program(other, lsb), "usr/bin/other", program(other, lsb)}, ""},
		"the last of two":        {files{"bin/sh", program(here, lsb), "bin/sh", program(other, lsb)}, foreign},
		"the first of two":       {files{"bin/sh", program(other, lsb), "bin/sh", program(here, lsb)}, ""},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := 0; i < len(tt.files); i += 2 {
			if err := w.WriteHeader(&tar.Header{Name: tt.files[i], Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(tt.files[i+1]))}); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, tt.files[i+1])
		}
		w.Close()
		for _, s := range suppliers() {
			cache := t.TempDir()
			_, err := s.pull(t, b.Bytes(), cache, 0)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || hint.Of(err) != "get the one for "+runtime.GOARCH) {
				t.Errorf("%s of %s: got %v, hint %q, want %q", what, s.name, err, hint.Of(err), tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "images", "blobs", "*")); err != nil && len(left) != 0 {
				t.Errorf("%s of %s: left %q", what, s.name, left)
			}
		}
	}
}
