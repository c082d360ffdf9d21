package e2e

import (
	"bytes"
	"encoding/json"
	"maps"
	"testing"

	"github.com/lsub/lsub/internal/layertest"
)

// overlayTrees reads stacks of layers as JSON, mounts each of them as an engine does with
// overlayfs, and writes the trees that are there.
const overlayTrees = `
import base64, ctypes, io, json, os, shutil, sys, tarfile
libc = ctypes.CDLL(None, use_errno=True)
def check(r, what):
	if r != 0: raise OSError(ctypes.get_errno(), what)
trees = []
for n, layers in enumerate(json.load(sys.stdin)):
	top = "/srv/overlay/%d" % n
	os.makedirs(top + "/empty"); os.mkdir(top + "/at")
	dirs = [top + "/empty"]
	for i, layer in enumerate(layers):
		at = "%s/%d" % (top, i); os.mkdir(at); dirs.insert(0, at)
		archive = tarfile.open(fileobj=io.BytesIO(base64.b64decode(layer)))
		for e in archive:
			p = os.path.join(at, e.name); d, base = os.path.split(p)
			os.makedirs(d, exist_ok=True)
			if base == ".wh..wh..opq": os.setxattr(d, "trusted.overlay.opaque", b"y")
			elif base.startswith(".wh."): os.mknod(os.path.join(d, base[4:]), 0o020000, os.makedev(0, 0))
			elif e.isdir(): os.makedirs(p, exist_ok=True)
			elif e.issym(): os.symlink(e.linkname, p)
			else: open(p, "wb").write(archive.extractfile(e).read())
	check(libc.mount(b"overlay", (top + "/at").encode(), b"overlay", 1, ("lowerdir=" + ":".join(dirs)).encode()), "mount")
	tree = {}
	for d, subs, files in os.walk(top + "/at"):
		for name in subs + files:
			p = os.path.join(d, name); rel = os.path.relpath(p, top + "/at")
			if os.path.islink(p): tree[rel] = ">" + os.readlink(p)
			elif os.path.isdir(p): tree[rel] = ""
			else: tree[rel] = open(p).read()
	trees.append(tree)
	check(libc.umount2((top + "/at").encode(), 0), "umount")
shutil.rmtree("/srv/overlay")
print(json.dumps(trees))
`

// TestLayersAsOverlay has the guest's own overlayfs show random stacks of layers. What it
// shows is what package images makes of the same stacks (images.TestLayerStacks).
func TestLayersAsOverlay(t *testing.T) {
	h, distro := withPython(t)
	var stacks []*layertest.Stack
	var layers [][][]byte
	for seed := range uint64(150) {
		s, err := layertest.NewStack(seed)
		if err != nil {
			t.Fatal(err)
		}
		stacks, layers = append(stacks, s), append(layers, s.Layers)
	}
	in, err := json.Marshal(layers)
	if err != nil {
		t.Fatal(err)
	}
	r := h.runWith(bytes.NewReader(in), "exec", "-u", "root", distro, "--", "python3", "-c", overlayTrees)
	var trees []layertest.Model
	if err := json.Unmarshal([]byte(r.out), &trees); r.code != 0 || err != nil || len(trees) != len(stacks) {
		t.Fatalf("%d trees, %v: exit %d, %s", len(trees), err, r.code, r.err)
	}
	for seed, s := range stacks {
		if !maps.Equal(trees[seed], s.Tree) {
			t.Errorf("seed %d: %s:\noverlayfs shows %v\nwant            %v", seed, s.Text, trees[seed], s.Tree)
		}
	}
}
