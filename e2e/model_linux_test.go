package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// modelled is what a distro is believed to hold: a word in a file, and words
// that were kept.
type modelled struct {
	word      string
	snapshots map[string]string
}

// model is what the host is believed to have.
type model struct {
	distros map[string]modelled
	def     string // the default distro
}

func (m model) clone() model {
	c := model{distros: map[string]modelled{}, def: m.def}
	for name, d := range m.distros {
		c.distros[name] = modelled{d.word, maps.Clone(d.snapshots)}
	}
	return c
}

func (m *model) add(name string, d modelled) {
	if len(m.distros) == 0 {
		m.def = name
	}
	m.distros[name] = d
}

// operation is a command, and what it makes of the model.
type operation struct {
	args []string
	do   func(*model)
}

// walker does random operations.
type walker struct {
	*host
	t       *testing.T
	rng     *rand.Rand
	m       model
	archive string
	serial  int
}

// TestRandomLife does 200 random operations in a row, and kills the supervisor
// before or in the middle of some of them. After each kill, and at the end,
// everything is as the model has it: what was said to be done is done, and what
// was cut off is done or not, but never half.
func TestRandomLife(t *testing.T) {
	h := fresh(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("LSUB_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("LSUB_TEST_SEED=%d does the same again", seed)
	w := &walker{
		host: h, t: t, rng: rand.New(rand.NewPCG(seed, 1)), m: model{distros: map[string]modelled{}},
		archive: tarball(t, "tar", archive(t, tinySystem(t))),
	}
	for i := range 200 {
		op := w.next()
		t.Logf("%d: lsub %s", i, strings.Join(op.args, " "))
		if w.rng.IntN(15) == 0 {
			w.cutOff(op)
		} else {
			h.ok(t, op.args...)
			op.do(&w.m)
		}
		if t.Failed() {
			return
		}
	}
	w.check(w.m)
	// The disk has what the registry has, and nothing besides.
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

// pick returns a distro that there is.
func (w *walker) pick() string {
	return slices.Sorted(maps.Keys(w.m.distros))[w.rng.IntN(len(w.m.distros))]
}

func (w *walker) newName() string {
	w.serial++
	return fmt.Sprintf("d%d", w.serial)
}

// write is the operation that puts a word into a distro, for good.
func (w *walker) write(name string) operation {
	w.serial++
	word := fmt.Sprintf("w%d", w.serial)
	return operation{
		args: []string{"exec", name, "--", "sh", "-ec", "echo " + word + " >/root/new; sync; mv /root/new /root/word; sync"},
		do: func(m *model) {
			d := m.distros[name]
			d.word = word
			m.distros[name] = d
		},
	}
}

// next chooses an operation that can be done.
func (w *walker) next() operation {
	if len(w.m.distros) == 0 {
		return w.install()
	}
	name := w.pick()
	d := w.m.distros[name]
	snaps := slices.Sorted(maps.Keys(d.snapshots))
	switch n := w.rng.IntN(20); {
	case n == 0 && len(w.m.distros) < 6:
		return w.install()
	case n <= 2 && len(w.m.distros) < 6:
		to := w.newName()
		return operation{args: []string{"clone", name, to}, do: func(m *model) { m.add(to, modelled{d.word, map[string]string{}}) }}
	case n == 3 && len(snaps) > 0 && len(w.m.distros) < 6:
		to, snap := w.newName(), snaps[w.rng.IntN(len(snaps))]
		return operation{args: []string{"clone", "--snapshot", snap, name, to}, do: func(m *model) { m.add(to, modelled{d.snapshots[snap], map[string]string{}}) }}
	case n == 4:
		return w.rename(name)
	case n <= 7:
		snap := w.newName()
		return operation{args: []string{"snapshot", "create", name, snap}, do: func(m *model) { m.distros[name].snapshots[snap] = d.word }}
	case n <= 9 && len(snaps) > 0:
		snap := snaps[w.rng.IntN(len(snaps))]
		return operation{args: []string{"snapshot", "restore", "--yes", name, snap}, do: func(m *model) {
			m.distros[name] = modelled{d.snapshots[snap], m.distros[name].snapshots}
		}}
	case n == 10 && len(snaps) > 0:
		snap := snaps[w.rng.IntN(len(snaps))]
		return operation{args: []string{"snapshot", "delete", name, snap}, do: func(m *model) { delete(m.distros[name].snapshots, snap) }}
	case n == 11:
		return w.unregister(name)
	case n == 12:
		return operation{args: []string{"set-default", name}, do: func(m *model) { m.def = name }}
	case n == 13:
		return operation{args: []string{"stop", name}, do: func(*model) {}}
	case n == 14:
		return operation{args: []string{"start", name}, do: func(*model) {}}
	case n == 15 && w.rng.IntN(3) == 0:
		return operation{args: []string{"shutdown"}, do: func(*model) {}}
	}
	return w.write(name)
}

func (w *walker) install() operation {
	name := w.newName()
	return operation{args: []string{"install", "--name", name, "--from-file", w.archive}, do: func(m *model) { m.add(name, modelled{"", map[string]string{}}) }}
}

func (w *walker) rename(name string) operation {
	to := w.newName()
	return operation{args: []string{"rename", name, to}, do: func(m *model) {
		m.distros[to] = m.distros[name]
		delete(m.distros, name)
		if m.def == name {
			m.def = to
		}
	}}
}

// unregister removes a distro, unless it is the default one: which one is
// then the default is the registry's affair, and tested there.
func (w *walker) unregister(name string) operation {
	if name == w.m.def && len(w.m.distros) > 1 {
		return w.write(name)
	}
	return operation{args: []string{"unregister", "--yes", name}, do: func(m *model) { delete(m.distros, name) }}
}

// cutOff kills the supervisor while an operation is under way.
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
	before := w.m.clone()
	op.do(&w.m)
	if r.code == 0 {
		w.check(w.m)
		return
	}
	if bad := w.differs(before); bad != "" {
		if worse := w.differs(w.m); worse != "" {
			w.t.Errorf("an operation that was cut off is neither done nor not done: %s; %s", bad, worse)
		}
		return
	}
	w.m = before
}

func (w *walker) check(m model) {
	w.t.Helper()
	if bad := w.differs(m); bad != "" {
		w.t.Error(bad)
	}
}

// differs says in what the host is not as the model has it.
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
		r := w.run("exec", name, "--", "sh", "-c", "cat /root/word 2>/dev/null || test ! -e /root/word")
		if got := strings.TrimSpace(r.out); r.code != 0 || got != d.word {
			return fmt.Sprintf("%s holds %q, want %q (%s)", name, got, d.word, r)
		}
	}
	return ""
}
