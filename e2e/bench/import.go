package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// importSize is how long the archive is that is imported, at least.
const importSize = 350e6

// importing measures how fast a root file system gets into the guest, and out
// of it again, in a VM that runs.
func (b *bench) importing() error {
	if err := b.main.debian(); err != nil { // which builds the image where it is not in the cache
		return err
	}
	if err := b.main.shutdown(); err != nil {
		return err
	}
	h, err := b.newHome("import")
	if err != nil {
		return err
	}
	if err := h.tiny(); err != nil {
		return err
	}
	vm, err := h.processes()
	if err != nil {
		return err
	}
	file := filepath.Join(b.dir, "import.tar")
	size, files, err := b.largeArchive(file)
	if err != nil {
		return err
	}
	var in, out importFigures
	for i := range b.times(3, 1) {
		// Some zeros more behind its end make it another image.
		if err := os.Truncate(file, size+int64(i+1)*512); err != nil {
			return err
		}
		name := fmt.Sprintf("import%d", i)
		if err := in.measure(h, vm, size, "install", "--name", name, "--from-file", file); err != nil {
			return err
		}
		if err := in.readParts(h); err != nil {
			return err
		}
		if err := out.measure(h, vm, size, "export", "--format", "tar", name, os.DevNull); err != nil {
			return err
		}
	}
	b.report.figure(fmt.Sprintf("import: a tar archive of %d MB with %d files, to the end of 'lsub install'", size/1e6, files), "MB/s", in.rate).
		Note = "what is wanted all the time, the guest's CPUs or its disk, is the limit; where neither is, the host is"
	for _, part := range importParts {
		b.report.figure(part.name, part.unit, in.parts[part.key])
	}
	in.report(b)
	b.report.figure("export: the same distro, to a plain tar archive", "MB/s", out.rate)
	out.report(b)
	return errors.Join(os.Remove(file), h.shutdown())
}

// importParts are the parts of an import, and what holds them up, with their keys in
// the agent's log.
var importParts = []struct{ key, name, unit string }{
	{"unpack.took", "… the guest unpacks", "s"},
	{"unpack.cpus_busy", "… … its CPUs are busy", "%"},
	{"unpack.cpus_wanted", "… … more could run than there are CPUs for", "%"},
	{"unpack.disk_awaited", "… … something waits for its disk", "%"},
	{"flush.took", "… and puts the rest on its disk", "s"},
	{"flush.cpus_busy", "… … its CPUs are busy", "%"},
	{"flush.cpus_wanted", "… … more could run than there are CPUs for", "%"},
	{"flush.disk_awaited", "… … something waits for its disk", "%"},
}

// importFigures is what is measured of imports, or of exports.
type importFigures struct {
	rate, qemu, supervisor, lsub samples
	parts                        map[string]samples // of imports, by key
}

// measure runs lsub, which moves size bytes.
func (f *importFigures) measure(h *home, vm *vmProcesses, size int64, args ...string) error {
	before, err := h.b.processorTimes(vm)
	if err != nil {
		return err
	}
	took, err := h.lsub(args...)
	if err != nil {
		return err
	}
	after, err := h.b.processorTimes(vm)
	if err != nil {
		return err
	}
	f.rate = append(f.rate, float64(size)/1e6/took.Seconds())
	for i, s := range []*samples{&f.qemu, &f.supervisor, &f.lsub} {
		*s = append(*s, (after[i] - before[i]).Seconds())
	}
	return nil
}

// processorTimes is what QEMU, the supervisor and all commands so far have used.
func (b *bench) processorTimes(vm *vmProcesses) (spent [3]time.Duration, err error) {
	if spent[0], err = processorTime(vm.qemu); err != nil {
		return spent, err
	}
	spent[1], err = processorTime(vm.supervisor)
	spent[2] = b.spent
	return spent, err
}

// readParts takes the parts of the last import from the guest's log.
func (f *importFigures) readParts(h *home) error {
	log, err := h.output("logs")
	if err != nil {
		return err
	}
	at := strings.LastIndex(log, `msg="image imported"`)
	if at < 0 {
		return errors.New("the guest's log knows of no import")
	}
	if f.parts == nil {
		f.parts = map[string]samples{}
	}
	line, _, _ := strings.Cut(log[at:], "\n")
	for _, part := range importParts {
		_, value, _ := strings.Cut(line, " "+part.key+"=")
		value, _, _ = strings.Cut(value, " ")
		number, err := strconv.ParseFloat(strings.TrimSuffix(value, "%"), 64)
		if d, derr := time.ParseDuration(value); derr == nil {
			number, err = d.Seconds(), nil
		}
		if err != nil {
			return fmt.Errorf("%s of %q: %w", part.key, line, err)
		}
		f.parts[part.key] = append(f.parts[part.key], number)
	}
	return nil
}

func (f *importFigures) report(b *bench) {
	b.report.figure("… processor time of QEMU", "s", f.qemu)
	b.report.figure("… of the supervisor", "s", f.supervisor)
	b.report.figure("… of the command", "s", f.lsub)
}

// largeArchive writes an archive that holds Debian's tree as often as it takes
// to be of importSize: the root, and copies of it below /srv. The same image
// gives the same bytes.
func (b *bench) largeArchive(file string) (size int64, files int, err error) {
	f, err := os.Create(file)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for prefix, n := "./", 1; size < importSize; prefix, n = fmt.Sprintf("./srv/copy%d/", n), n+1 {
		count, err := addImage(w, "debian-trixie-"+runtime.GOARCH, prefix)
		if err != nil {
			return 0, 0, err
		}
		files += count
		if size, err = f.Seek(0, io.SeekCurrent); err != nil {
			return 0, 0, err
		}
	}
	if err := errors.Join(w.Close(), f.Sync()); err != nil {
		return 0, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	return info.Size(), files, nil
}

// addImage adds the files of a cached image below prefix.
func addImage(w *tar.Writer, key, prefix string) (files int, err error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return 0, err
	}
	dir = filepath.Join(dir, "lsub/images")
	var record struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(content(filepath.Join(dir, key+".json"))), &record); err != nil {
		return 0, fmt.Errorf("image %s in the cache: %w", key, err)
	}
	f, err := os.Open(filepath.Join(dir, "blobs", strings.Replace(record.ID, ":", "-", 1)+".tar.zst"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return 0, err
	}
	defer z.Close()
	for r := tar.NewReader(z); ; files++ {
		h, err := r.Next()
		if err == io.EOF {
			return files, w.Flush()
		}
		if err != nil {
			return 0, err
		}
		below := func(name string) string {
			clean := path.Clean(name)
			switch {
			case clean == ".":
				return prefix
			case strings.HasSuffix(name, "/"):
				return prefix + clean + "/"
			}
			return prefix + clean
		}
		h.Name, h.Format, h.AccessTime, h.ChangeTime = below(h.Name), tar.FormatPAX, time.Time{}, time.Time{}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = below(h.Linkname)
		}
		if err := w.WriteHeader(h); err != nil {
			return 0, err
		}
		if _, err := io.Copy(w, r); err != nil {
			return 0, err
		}
	}
}
