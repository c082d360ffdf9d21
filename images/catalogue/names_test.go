package catalogue

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shortNames asks both kinds of catalogues, in the order in which lsub does, with
// documents of the forms that WSL's manifest and the LXC image server have:
// their fields, names and order are as there; files and sums are made up.
func shortNames(t *testing.T) (offers []Offer, lxc string) {
	t.Helper()
	docs := map[string]string{}
	for path, file := range map[string]string{
		"/DistributionInfo.json": "DistributionInfo.json", "/streams/v1/index.json": "index.json", "/streams/v1/images.json": "images.json",
	} {
		data, err := os.ReadFile(filepath.Join("testdata", "catalogues", file))
		if err != nil {
			t.Fatal(err)
		}
		docs[path] = string(data)
	}
	base, roots := serveDocuments(t, docs)
	for _, c := range []Catalogue{&WSL{URL: base + "/DistributionInfo.json", Roots: roots}, &Simplestreams{URL: base, Roots: roots}} {
		list, err := c.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		offers = append(offers, list...)
	}
	return offers, base + "/images/"
}

// TestShortNames has the names that people type mean the right image, on both
// architectures.
func TestShortNames(t *testing.T) {
	offers, lxc := shortNames(t)
	const wsl = "https://download.example/"
	for _, tt := range []struct{ name, label, url string }{ // ARCH is the architecture
		{"ubuntu", "ubuntu@", wsl + "noble/ubuntu-24.04.3-wsl-ARCH.wsl"},
		{"ubuntu:22.04", "ubuntu-22.04@", wsl + "jammy/ubuntu-22.04.5-wsl-ARCH.wsl"},
		{"ubuntu/noble", "ubuntu-noble@20260110_07:08", lxc + "ubuntu/noble/ARCH/default/20260110_07:08/rootfs.tar.xz"},
		{"alma", "almalinux-10@", wsl + "AlmaLinux-10.1_ARCH_20260101.0.wsl"},
		{"almalinux", "almalinux-10@", wsl + "AlmaLinux-10.1_ARCH_20260101.0.wsl"},
		{"alma:9", "almalinux-9@", wsl + "AlmaLinux-9.7_ARCH_20260101.0.wsl"},
		{"alma-kitten-10", "almalinux-kitten-10@", wsl + "AlmaLinux-Kitten-10_ARCH_20260101.0.wsl"},
		{"fedora", "fedoralinux-43@", wsl + "Fedora-WSL-Base-43-1.6.ARCH.wsl"},
		{"fedora:42", "fedoralinux-42@", wsl + "Fedora-WSL-Base-42-1.1.ARCH.wsl"},
		{"alpine", "alpine-3.22@20260110_13:00", lxc + "alpine/3.22/ARCH/default/20260110_13:00/rootfs.tar.xz"},
		{"alpine:edge", "alpine-edge@20260110_13:00", lxc + "alpine/edge/ARCH/default/20260110_13:00/rootfs.tar.xz"},
		{"alpine/3.22/cloud", "alpine-3.22-cloud@20260110_13:00", lxc + "alpine/3.22/ARCH/cloud/20260110_13:00/rootfs.tar.xz"},
		{"kali", "kali-linux@", wsl + "kali/kali-linux-2026.1-wsl-rootfs-ARCH.wsl"},
		{"debian", "debian@", wsl + "Debian_WSL_ARCH_v1.22.0.0.wsl"},
	} {
		for _, arch := range []string{"amd64", "arm64"} {
			wantOffer(t, offers, tt.name, arch, tt.label, strings.ReplaceAll(tt.url, "ARCH", arch))
		}
	}
	// WSL's manifest has Arch for one architecture alone.
	for _, name := range []string{"arch", "archlinux"} {
		wantOffer(t, offers, name, "amd64", "archlinux@", wsl+"wsl/2026.01.01/archlinux-2026.01.01.wsl")
		wantOffer(t, offers, name, "arm64", "archlinux-current@20260110_07:08", lxc+"archlinux/current/arm64/default/20260110_07:08/rootfs.tar.xz")
	}
	for _, name := range []string{"oracle", "oraclelinux_9_1", "nixos", "alma-11", "fedora-4"} { // old packages, virtual machines, nothing
		if o, err := Resolve(offers, name, "amd64"); err == nil {
			t.Errorf("%s: got %+v", name, o)
		}
	}
}

// wantOffer resolves a name. label is how the image's begins.
func wantOffer(t *testing.T, offers []Offer, name, arch, label, url string) {
	t.Helper()
	o, err := Resolve(offers, name, arch)
	if err != nil {
		t.Errorf("%s for %s: %v", name, arch, err)
		return
	}
	ref, err := o.Ref()
	if err != nil || ref.String() != url || !strings.HasPrefix(ref.Label, label) || o.Arch != arch {
		t.Errorf("%s for %s: got %+v, %v; want %s", name, arch, ref, err, url)
	}
	file := url // what the sum in the documents is made of
	if _, path, ok := strings.Cut(url, "/images/"); ok {
		file = "images/" + path
	}
	if want := fmt.Sprintf("%x", sha256.Sum256([]byte(file))); ref.SHA256 != want {
		t.Errorf("%s for %s has the sum %s of another file", name, arch, ref.SHA256)
	}
}
