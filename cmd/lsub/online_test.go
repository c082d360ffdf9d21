//go:build unix

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// online [BREAKAGE…] starts a web server at $HOST with a WSL manifest and a
// simplestreams server's lists, and has lsub trust it and use them. With
// "stop", it stops the one that runs; the addresses stay.
func scriptOnline(ts *testscript.TestScript, neg bool, args []string) {
	const key = "LSUBTEST_SERVER"
	if len(args) == 1 && args[0] == "stop" {
		onlineServers[ts.Getenv(key)].Close()
		return
	}
	files := onlineFiles()
	for _, what := range args {
		switch what {
		case "no-lxc":
			delete(files, "/lxc/streams/v1/index.json")
		case "wrong-sum":
			files["/alma.wsl"] = []byte("something else")
		default:
			ts.Fatalf("unknown word %q", what)
		}
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(strings.ReplaceAll(string(data), "https://HOST", "https://"+r.Host)))
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	ts.Defer(s.Close)
	onlineServers[s.URL] = s
	ca := ts.MkAbs("ca.pem")
	ts.Check(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	ts.Setenv(key, s.URL)
	ts.Setenv("SSL_CERT_FILE", ca)
	ts.Setenv("HOST", strings.TrimPrefix(s.URL, "https://"))
	ts.Setenv("LSUBTEST_CATALOGUES", s.URL+"/DistributionInfo.json "+s.URL+"/lxc")
}

// onlineServers are those of the scripts, which run one after the other, by
// their addresses.
var onlineServers = map[string]*httptest.Server{}

// onlineFiles are two catalogues and what they offer, for this architecture.
func onlineFiles() map[string][]byte {
	files := map[string][]byte{}
	sum := func(path string) string {
		files[path] = tinyImage(path)
		s := sha256.Sum256(files[path])
		return hex.EncodeToString(s[:])
	}
	type object = map[string]any
	here, other := "Amd64Url", "Arm64Url"
	if runtime.GOARCH == "arm64" {
		here, other = other, here
	}
	wsl := func(name, title, path, arch string, isDefault bool) object {
		return object{"Name": name, "FriendlyName": title, "Default": isDefault, arch: object{"Url": "https://HOST" + path, "Sha256": "0x" + sum(path)}}
	}
	files["/DistributionInfo.json"], _ = json.Marshal(object{"ModernDistributions": object{
		"Ubuntu":    []object{wsl("Ubuntu", "Ubuntu", "/ubuntu.wsl", here, true), wsl("Ubuntu-24.04", "Ubuntu 24.04 LTS", "/ubuntu24.wsl", here, false)},
		"AlmaLinux": []object{wsl("AlmaLinux-9", "AlmaLinux OS 9", "/alma9.wsl", here, false), wsl("AlmaLinux-10", "AlmaLinux OS 10", "/alma.wsl", here, true)},
		"Exotic":    []object{wsl("Exotic-1", "Exotic 1", "/exotic.wsl", other, true)},
		"Debian":    []object{wsl("Debian", "Debian GNU/Linux", "/debian.wsl", here, true)},
	}})
	lxc := func(system, release, path string) object {
		return object{"arch": runtime.GOARCH, "os": system, "release": release, "release_title": release, "variant": "default",
			"aliases": strings.ToLower(system) + "/" + release + "/default," + strings.ToLower(system) + "/" + release,
			"versions": object{"20261121_13:00": object{"items": object{"root.tar.xz": object{
				"ftype": "root.tar.xz", "path": "images/" + path, "sha256": sum("/lxc/images/" + path), "size": len(tinyImage("/lxc/images/" + path))}}}}}
	}
	// This one comes as a squashfs image only.
	image, err := os.ReadFile("../../images/internal/squashfs/testdata/lz4.squashfs")
	if err != nil {
		panic(err)
	}
	files["/lxc/images/void.squashfs"] = image
	s := sha256.Sum256(image)
	void := object{"arch": runtime.GOARCH, "os": "Voidlinux", "release": "current", "versions": object{"20261121_17:10": object{"items": object{
		"root.squashfs": object{"ftype": "squashfs", "path": "images/void.squashfs", "sha256": hex.EncodeToString(s[:]), "size": len(image)}}}}}
	files["/lxc/streams/v1/index.json"], _ = json.Marshal(object{"index": object{"images": object{"datatype": "image-downloads", "path": "streams/v1/images.json"}}})
	files["/lxc/streams/v1/images.json"], _ = json.Marshal(object{"products": object{
		"alpine:3.21": lxc("Alpine", "3.21", "alpine-3.21.tar"), "alpine:3.22": lxc("Alpine", "3.22", "alpine-3.22.tar"),
		"void": void, "alpine:edge": lxc("Alpine", "edge", "alpine-edge.tar"), "debian:bookworm": lxc("Debian", "bookworm", "bookworm.tar"),
	}})
	return files
}
