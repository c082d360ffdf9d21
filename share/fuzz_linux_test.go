package share

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzHandle has a hostile guest send any requests. Nothing outside the folder may change,
// and each answer has to be well-formed.
func FuzzHandle(f *testing.F) {
	c := &client{}
	seed := func(messages ...[]byte) {
		var all []byte
		for _, m := range messages {
			all = append(all, m...)
		}
		f.Add(all, true)
		f.Add(all, false)
	}
	seed(c.message(opLookup, 1, fields("f")), c.message(opOpen, 2, fields(uint32(2), uint32(0))), c.message(opRead, 2, fields(uint64(3), uint64(0), uint32(100), uint32(0), uint64(0), uint32(0), uint32(0))))
	seed(c.message(opLookup, 1, fields("d")), c.message(opLookup, 2, fields("up")), c.message(opOpen, 3, fields(uint32(1), uint32(0))), c.message(opSetattr, 3, setattr(setMode|setSize, 0o777, 0, 0, 3)))
	seed(c.message(opCreate, 1, fields(uint32(2), uint32(0o600), uint32(0), uint32(0), "../x")), c.message(opSymlink, 1, fields("l", "/")), c.message(opMknod, 1, fields(uint32(0o20666), uint32(0x103), uint32(0), uint32(0), "n")))
	seed(c.message(opOpendir, 1, fields(uint32(0), uint32(0))), c.message(opReaddirplus, 1, fields(uint64(2), uint64(0), uint32(500), uint32(0), uint64(0), uint32(0), uint32(0))))
	seed(c.message(opRename2, 1, fields(uint64(1), uint32(0), uint32(0), "f", "../g")), c.message(opBatchForget, 0, fields(^uint32(0), uint32(0), uint64(2), uint64(9))))
	seed(c.message(opCreate, 1, fields(uint32(2), uint32(0o600), uint32(0), uint32(0), "x")), c.message(opSetlk, 2, fields(uint64(3), uint64(1), uint64(0), ^uint64(0), uint32(1), uint32(0), uint32(0), uint32(0))), c.message(opSetxattr, 2, fields(uint32(2), uint32(0), "user.a", []byte("xy"))), c.message(opTmpfile, 1, fields(uint32(2), uint32(0o600), uint32(0), uint32(0), "x")))
	f.Fuzz(func(t *testing.T, input []byte, writable bool) {
		// In memory, if there is room: a disk that others use makes fsync take seconds.
		top, err := os.MkdirTemp("/dev/shm", "lsub-fuzz-")
		if err != nil {
			top = t.TempDir()
		}
		defer os.RemoveAll(top)
		dir := filepath.Join(top, "share")
		for _, d := range []string{dir, filepath.Join(dir, "d")} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		secret := filepath.Join(top, "secret")
		for _, name := range []string{secret, filepath.Join(dir, "f")} {
			if err := os.WriteFile(name, []byte("as it was"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("../../secret", filepath.Join(dir, "d/up")); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Config{Dir: dir, Writable: writable, MaxFDs: 4, Metadata: len(input)%2 == 0})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range 40 {
			if len(input) < inHeaderLen {
				break
			}
			n := min(max(int(binary.LittleEndian.Uint32(input)), inHeaderLen), len(input))
			m := input[:n]
			input = input[n:]
			op := binary.LittleEndian.Uint32(m[4:])
			if op == opSetlkw || op == opFallocate || op == opSyncfs { // may take long, or much room
				continue
			}
			out := make([]byte, 4096)
			answered := s.Handle(t.Context(), [][]byte{m[:len(m)/2], m[len(m)/2:]}, [][]byte{out[:7], out[7:]})
			if answered == 0 && hasNoAnswer(op) {
				continue
			}
			if answered < outHeaderLen || answered > len(out) || int(binary.LittleEndian.Uint32(out)) != answered || !bytes.Equal(out[8:16], m[8:16]) {
				t.Fatalf("request %d: %d bytes, header %x", op, answered, out[:outHeaderLen])
			}
			if errno := -int32(binary.LittleEndian.Uint32(out[4:])); errno < 0 || errno >= 512 {
				t.Fatalf("request %d: error %d", op, errno)
			}
		}
		if b, err := os.ReadFile(secret); err != nil || string(b) != "as it was" {
			t.Fatalf("outside: %q, %v", b, err)
		}
		entries, err := os.ReadDir(top)
		if err != nil || len(entries) != 2 {
			t.Fatalf("outside: %v, %v", entries, err)
		}
		if !writable { // otherwise it may be a pipe by now
			if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(b) != "as it was" {
				t.Fatalf("read-only: %q, %v", b, err)
			}
		}
		_ = unix.Chmod(dir, 0o755)
	})
}
