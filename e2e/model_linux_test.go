package e2e

import (
	"archive/tar"
	"cmp"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// modelled is a distro's expected content, a word in a file and kept words, and its expected
// settings. If several words are possible, they are separated by a bar.
type modelled struct {
	word      string
	snapshots map[string]string
	pids      int // limit
}

// model is the host's expected state.
type model struct {
	distros  map[string]modelled
	def      string            // the default distro
	archives map[string]string // the word in an exported file
}

func (m model) clone() model {
	c := model{distros: map[string]modelled{}, def: m.def, archives: maps.Clone(m.archives)}
	for name, d := range m.distros {
		d.snapshots = maps.Clone(d.snapshots)
		c.distros[name] = d
	}
	return c
}

func (m *model) add(name string, d modelled) {
	if len(m.distros) == 0 {
		m.def = name
	}
	d.snapshots = map[string]string{}
	m.distros[name] = d
}

func (m *model) change(name string, f func(*modelled)) {
	d := m.distros[name]
	f(&d)
	m.distros[name] = d
}

// after returns the model after the operations, in this order.
func (m model) after(ops ...operation) model {
	c := m.clone()
	for _, op := range ops {
		op.do(&c)
	}
	return c
}

// kind says which other operations may run beside an operation.
type kind int

const (
	alone     kind = iota // none: it ends the VM
	exclusive             // none on the same distro
	stopping              // none that runs in the same distro
	running               // none that stops the same distro
	peaceful              // all that are not exclusive
)

// operation is a command, and its effect on the model.
type operation struct {
	args []string
	kind kind
	on   string // distro; "" for none
	do   func(*model)
}

// beside reports whether two operations may run at once and both succeed.
func (op operation) beside(other operation) bool {
	reads, writes := op.args[0] == "import" || other.args[0] == "import", op.args[0] == "export" || other.args[0] == "export"
	switch {
	case op.kind == alone || other.kind == alone, reads && writes: // possibly the same file
		return false
	case op.on != other.on || op.on == "":
		return true
	case op.kind == exclusive || other.kind == exclusive:
		return false
	}
	return !(op.kind == stopping && other.kind == running || op.kind == running && other.kind == stopping)
}

// walker does random operations.
type walker struct {
	*host
	t       *testing.T
	rng     *rand.Rand
	m       model
	archive string
	dir     string // of the exported files
	serial  int
	took    map[string]time.Duration // by kind of operation
}

// TestRandomLife runs 100 random operations (1,000 with LSUB_TEST_LONG=1), some two at once.
// It kills the supervisor before or during some of them. After each kill, and at the end,
// everything is as in the model: a confirmed operation is done, and an interrupted one is
// done or not, but never half.
func TestRandomLife(t *testing.T) {
	h := fresh(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("LSUB_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("LSUB_TEST_SEED=%d does the same again", seed)
	w := &walker{
		host: h, t: t, rng: rand.New(rand.NewPCG(seed, 1)), m: model{distros: map[string]modelled{}, archives: map[string]string{}},
		archive: tarball(t, "tar", archive(t, tinySystem(t))), dir: t.TempDir(), took: map[string]time.Duration{},
	}
	defer func() { t.Logf("it took, by what was done: %v", w.took) }()
	operations, kills := 100, 4 // a kill means a boot, and so most of the time
	if os.Getenv("LSUB_TEST_LONG") == "1" {
		operations, kills = 1000, 40
	}
	killAt := w.rng.Perm(operations)[:kills]
	for i := 0; i < operations; i++ {
		op := w.next()
		begin, what := time.Now(), op.args[0]
		switch n := w.rng.IntN(5); {
		case slices.Contains(killAt, i):
			t.Logf("%d: %s, killed", i, op)
			w.cutOff(op)
			what = "killed"
		case n == 0 && len(w.m.distros) > 0:
			if op.kind == alone {
				op = w.write(w.pick())
			}
			other := w.next()
			for !other.beside(op) {
				other = w.next()
			}
			t.Logf("%d: %s, and %s", i, op, other)
			w.bothAtOnce(op, other)
			what = "two at once"
			i++
		default:
			t.Logf("%d: %s", i, op)
			h.ok(t, op.args...)
			op.do(&w.m)
		}
		w.took[what] += time.Since(begin)
		if t.Failed() {
			return
		}
	}
	w.check(w.m)
	// The disk has exactly the registry's distros.
	h.ok(t, "shutdown")
	h.ok(t, "start", w.pick())
	log, err := os.ReadFile(h.dir + "/home/profiles/default/supervisor.log")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "is not on the data disk") {
		t.Errorf("something registered is not on the data disk:\n%s", log)
	}
	last := log[strings.LastIndex(string(log), "the guest serves"):]
	if strings.Contains(string(last), "not registered") {
		t.Errorf("a clean start found something to delete:\n%s", last)
	}
}

func (op operation) String() string { return "lsub " + strings.Join(op.args, " ") }

// pick returns an existing distro.
func (w *walker) pick() string {
	return slices.Sorted(maps.Keys(w.m.distros))[w.rng.IntN(len(w.m.distros))]
}

func (w *walker) newName() string {
	w.serial++
	return fmt.Sprintf("d%d", w.serial)
}

// write is the operation that writes a word into a distro and flushes it.
func (w *walker) write(name string) operation {
	w.serial++
	word := fmt.Sprintf("w%d", w.serial)
	return operation{
		args: []string{"exec", name, "--", "sh", "-ec", "echo " + word + " >/root/" + word + "; sync; mv /root/" + word + " /root/word; sync"},
		kind: running, on: name,
		do: func(m *model) { m.change(name, func(d *modelled) { d.word = word }) },
	}
}

// next chooses a possible operation.
func (w *walker) next() operation {
	if len(w.m.distros) == 0 {
		return w.install()
	}
	name := w.pick()
	snaps := slices.Sorted(maps.Keys(w.m.distros[name].snapshots))
	files := slices.Sorted(maps.Keys(w.m.archives))
	room := len(w.m.distros) < 6
	snap := ""
	if len(snaps) > 0 {
		snap = snaps[w.rng.IntN(len(snaps))]
	}
	nothing := func(*model) {}
	switch n := w.rng.IntN(24); {
	case n == 0 && room:
		return w.install()
	case n <= 2 && room:
		to := w.newName()
		return operation{[]string{"clone", name, to}, peaceful, name, func(m *model) { m.add(to, m.distros[name]) }}
	case n == 3 && snap != "" && room:
		to := w.newName()
		return operation{[]string{"clone", "--snapshot", snap, name, to}, peaceful, name, func(m *model) {
			m.add(to, modelled{word: m.distros[name].snapshots[snap], pids: m.distros[name].pids})
		}}
	case n == 4:
		return w.rename(name)
	case n <= 7:
		snap := w.newName()
		return operation{[]string{"snapshot", "create", name, snap}, peaceful, name, func(m *model) { m.distros[name].snapshots[snap] = m.distros[name].word }}
	case n <= 10 && snap != "":
		return operation{[]string{"snapshot", "restore", "--yes", name, snap}, stopping, name, func(m *model) {
			m.change(name, func(d *modelled) { d.word = d.snapshots[snap] })
		}}
	case n == 11 && snap != "":
		return operation{[]string{"snapshot", "delete", name, snap}, exclusive, name, func(m *model) { delete(m.distros[name].snapshots, snap) }}
	case n == 12:
		return w.unregister(name)
	case n == 13:
		return operation{[]string{"set-default", name}, peaceful, name, func(m *model) { m.def = name }}
	case n == 14:
		return operation{[]string{"stop", name}, stopping, name, nothing}
	case n == 15:
		return operation{[]string{"start", name}, peaceful, name, nothing}
	case n == 16 && w.rng.IntN(3) == 0:
		return operation{[]string{"shutdown"}, alone, "", nothing}
	case n == 17:
		return w.export(name, files)
	case n == 18 && len(files) > 0 && room:
		file, to := files[w.rng.IntN(len(files))], w.newName()
		return operation{[]string{"import", to, file}, peaceful, "", func(m *model) { m.add(to, modelled{word: m.archives[file]}) }}
	case n == 19:
		w.serial++
		pids := 100 + w.serial
		return operation{[]string{"manage", "--pids-max", strconv.Itoa(pids), name}, peaceful, name, func(m *model) {
			m.change(name, func(d *modelled) { d.pids = pids })
		}}
	}
	return w.write(name)
}

func (w *walker) install() operation {
	name := w.newName()
	return operation{args: []string{"install", "--name", name, "--from-file", w.archive}, kind: peaceful, do: func(m *model) { m.add(name, modelled{}) }}
}

// export writes to a new file, or overwrites an existing one.
func (w *walker) export(name string, files []string) operation {
	file := filepath.Join(w.dir, w.newName()+".tar")
	if len(files) > 2 {
		file = files[w.rng.IntN(len(files))]
	}
	return operation{[]string{"export", name, file}, peaceful, name, func(m *model) { m.archives[file] = m.distros[name].word }}
}

func (w *walker) rename(name string) operation {
	to := w.newName()
	return operation{[]string{"rename", name, to}, exclusive, name, func(m *model) {
		m.distros[to] = m.distros[name]
		delete(m.distros, name)
		if m.def == name {
			m.def = to
		}
	}}
}

// unregister removes a distro other than the default one. The registry chooses the next
// default, and has its own test.
func (w *walker) unregister(name string) operation {
	if name == w.m.def && len(w.m.distros) > 1 {
		return w.write(name)
	}
	return operation{[]string{"unregister", "--yes", name}, exclusive, name, func(m *model) { delete(m.distros, name) }}
}

// bothAtOnce runs two operations at once. The result is the same as one after the other.
func (w *walker) bothAtOnce(op, other operation) {
	var both sync.WaitGroup
	for _, op := range []operation{op, other} {
		both.Go(func() {
			if r := w.run(op.args...); r.code != 0 {
				w.t.Error(r)
			}
		})
	}
	both.Wait()
	one, two := w.m.after(op, other), w.m.after(other, op)
	w.m = one
	if reflect.DeepEqual(one, two) || w.t.Failed() {
		return
	}
	// The content of a snapshot shows only later.
	for name, d := range one.distros {
		for snap, word := range d.snapshots {
			if other := two.distros[name].snapshots[snap]; other != word {
				either := word + "|" + other
				d.snapshots[snap], two.distros[name].snapshots[snap] = either, either
			}
		}
	}
	if bad := w.differs(one); bad != "" {
		if worse := w.differs(two); worse != "" {
			w.t.Errorf("of two at once, neither is done before the other: %s; %s", bad, worse)
		}
		w.m = two
	}
}

// cutOff kills the supervisor during an operation.
func (w *walker) cutOff(op operation) {
	w.ok(w.t, "status")
	var victim int
	if r := w.run("status", "--json"); strings.Contains(r.out, `"pid"`) {
		victim, _ = w.supervisor(w.t)
	}
	var r result
	var done sync.WaitGroup
	done.Go(func() { r = w.run(op.args...) })
	after := time.Duration(w.rng.IntN(400)) * time.Millisecond
	time.Sleep(after) // a random moment of the operation
	if victim != 0 {
		syscall.Kill(victim, syscall.SIGKILL)
		waitGone(w.t, victim)
	}
	done.Wait()
	w.t.Logf("    killed after %v: exit %d %s", after, r.code, strings.TrimSpace(r.err))
	before := w.m
	w.m = before.after(op)
	bad := w.differs(w.m)
	if bad == "" {
		return
	}
	if r.code == 0 {
		w.t.Error(bad)
		return
	}
	if worse := w.differs(before); worse != "" {
		w.t.Errorf("an operation that was cut off is neither done nor not done: %s; %s", bad, worse)
	}
	w.m = before
}

func (w *walker) check(m model) {
	w.t.Helper()
	if bad := w.differs(m); bad != "" {
		w.t.Error(bad)
	}
}

// differs describes the host's differences from the model.
func (w *walker) differs(m model) string {
	list := w.list(w.t)
	if got, want := slices.Sorted(maps.Keys(list)), slices.Sorted(maps.Keys(m.distros)); !slices.Equal(got, want) {
		return fmt.Sprintf("there are the distros %v, want %v", got, want)
	}
	for name, d := range m.distros {
		if list[name].Default != (name == m.def) {
			return fmt.Sprintf("the default is not %s", m.def)
		}
		var snaps []string
		for _, s := range list[name].Snapshots {
			snaps = append(snaps, s.Name)
		}
		if want := slices.Sorted(maps.Keys(d.snapshots)); !slices.Equal(slices.Sorted(slices.Values(snaps)), want) {
			return fmt.Sprintf("%s has the snapshots %v, want %v", name, snaps, want)
		}
		if list[name].PIDsMax != d.pids {
			return fmt.Sprintf("%s may have %d processes, want %d", name, list[name].PIDsMax, d.pids)
		}
	}
	for file, want := range m.archives {
		if got, err := wordIn(file); !isWord(got, want) || err != nil {
			return fmt.Sprintf("%s holds %q (%v), want %q", file, got, err, want)
		}
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "*")); err != nil || len(left) != len(m.archives) {
		return fmt.Sprintf("there are the files %v (%v), want %v", left, err, m.archives)
	}
	// In parallel, one for each distro in the VM.
	results := make(chan string)
	for name, d := range m.distros {
		go func() {
			r := w.run("exec", name, "--", "sh", "-c", "cat /root/word 2>/dev/null || test ! -e /root/word")
			bad := ""
			if got := strings.TrimSpace(r.out); r.code != 0 || !isWord(got, d.word) {
				bad = fmt.Sprintf("%s holds %q, want %q (%s)", name, got, d.word, r)
			}
			results <- bad
		}()
	}
	bad := ""
	for range m.distros {
		bad = cmp.Or(bad, <-results)
	}
	return bad
}

// isWord reports whether a word is one of the model's words.
func isWord(word, model string) bool { return slices.Contains(strings.Split(model, "|"), word) }

// wordIn reads the word in an exported archive.
func wordIn(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if path.Clean(h.Name) == "root/word" {
			b, err := io.ReadAll(r)
			return strings.TrimSpace(string(b)), err
		}
	}
}
