package catalogue

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/images"
)

var sumA, sumB = strings.Repeat("a", 64), strings.Repeat("b", 64)

// serveDocuments serves texts by their paths.
func serveDocuments(t *testing.T, docs map[string]string) (base string, roots *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := docs[r.URL.Path]
		switch {
		case !ok:
			http.NotFound(w, r)
		case strings.HasPrefix(text, "to "):
			w.Header().Set("Location", text[3:])
			w.WriteHeader(http.StatusFound)
		default:
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.URL, roots
}

const wslText = `{"Default":"Ubuntu","Distributions":[{"Name":"old"}],"ModernDistributions":{
"Ubuntu":[
 {"Name":"Ubuntu","FriendlyName":"Ubuntu \u001b[2J","Default":true,"Amd64Url":{"Url":"https://h/u.wsl","Sha256":"0x%[1]s"},"Arm64Url":{"Url":"HTTPS://h/u-arm.wsl","Sha256":"%[2]s"}},
 {"Name":"Ubuntu-24.04","FriendlyName":"Ubuntu 24.04 LTS","Amd64Url":{"Url":"https://h/u24.wsl","Sha256":"%[2]s"}},
 {"Name":"Ubuntu-24.04","FriendlyName":"again","Amd64Url":{"Url":"https://h/evil.wsl","Sha256":"%[1]s"}}],
"AlmaLinux":[{"Name":"AlmaLinux-10","FriendlyName":"AlmaLinux OS 10","Default":true,"Amd64Url":{"Url":"https://h/a.wsl","Sha256":"%[1]s"}}],
"Liars":[
 {"Name":"plain","Amd64Url":{"Url":"http://h/x","Sha256":"%[1]s"}},
 {"Name":"file","Amd64Url":{"Url":"file:///x","Sha256":"%[1]s"}},
 {"Name":"nosum","Amd64Url":{"Url":"https://h/x"}},
 {"Name":"badsum","Amd64Url":{"Url":"https://h/x","Sha256":"0x12"}},
 {"Name":"bad \u001b name","Amd64Url":{"Url":"https://h/x","Sha256":"%[1]s"}}]}}`

func TestWSL(t *testing.T) {
	base, roots := serveDocuments(t, map[string]string{"/info.json": fmt.Sprintf(wslText, sumA, sumB)})
	offers, err := (&WSL{URL: base + "/info.json", Roots: roots}).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := offerNames(offers); !slices.Equal(got, []string{"almalinux-10 amd64", "ubuntu amd64", "ubuntu arm64", "ubuntu-24.04 amd64"}) {
		t.Fatalf("got %q", got)
	}
	for name, want := range map[string]string{"alma": "https://h/a.wsl", "Ubuntu": "https://h/u.wsl", "ubuntu:24.04": "https://h/u24.wsl"} {
		o, err := Resolve(offers, name, "amd64")
		if err != nil || o.URL != want {
			t.Errorf("%s: got %+v, %v", name, o, err)
		}
		if ref, err := o.Ref(); err != nil || ref.String() != want || ref.Label != o.Name+"@sha256:"+o.SHA256[:12] {
			t.Errorf("%s: got %+v, %v", name, ref, err)
		}
	}
	if offers[1].Title != "Ubuntu ?[2J" || offers[1].SHA256 != sumA {
		t.Errorf("got %+v", offers[1])
	}
	if o, err := Resolve(offers, "ubuntu", "arm64"); err != nil || o.URL != "https://h/u-arm.wsl" || o.SHA256 != sumB {
		t.Errorf("got %+v, %v", o, err)
	}
	if _, err := Resolve(offers, "alma", "arm64"); err == nil || err.Error() != `image "alma" is offered for amd64, not for arm64` {
		t.Errorf("got %v", err)
	}
	var unknown *UnknownError
	if _, err := Resolve(offers, "ubuntu-2", "amd64"); !errors.As(err, &unknown) || !slices.Equal(unknown.Near, []string{"ubuntu-24.04"}) {
		t.Errorf("got %v", err)
	}
}

func TestShortName(t *testing.T) {
	for _, same := range [][]string{
		{"alma", "AlmaLinux", "almalinux"}, {"fedora:42", "FedoraLinux-42", "fedora/42/default"}, {"kali", "kali-linux"},
		{"arch", "archlinux"}, {"ubuntu-24.04", "Ubuntu_24.04"}, {"linux"}, {"alpine-3.22-cloud", "alpine/3.22/cloud"}, {""},
	} {
		for _, name := range same {
			if got := ShortName(name); got != same[0] && got != ShortName(same[0]) {
				t.Errorf("%s: got %q", name, got)
			}
		}
	}
	if ShortName("arch") == ShortName("archcraft") || ShortName("fedora-4") == ShortName("fedora-42") {
		t.Error("different names are the same")
	}
}

func offerNames(offers []Offer) []string {
	var names []string
	for _, o := range offers {
		names = append(names, o.Name+" "+o.Arch)
	}
	return names
}

const streamText = `{"format":"products:1.0","products":{
"debian:trixie:amd64:default":{"arch":"amd64","os":"Debian","release":"trixie","release_title":"13","variant":"default","aliases":"debian/trixie/default,debian/trixie","versions":{
 "20260101_05:24":{"items":{"root.tar.xz":{"ftype":"root.tar.xz","path":"images/old.tar.xz","sha256":"%[1]s","size":1}}},
 "20260102_05:24":{"items":{"root.squashfs":{"ftype":"squashfs","path":"images/new.squashfs","sha256":"%[1]s","size":2},"root.tar.xz":{"ftype":"root.tar.xz","path":"images/new.tar.xz","sha256":"%[2]s","size":3}}}}},
"debian:trixie:arm64:default":{"arch":"arm64","os":"Debian","release":"trixie","versions":{"1":{"items":{"r":{"ftype":"root.tar.xz","path":"images/arm.tar.xz","sha256":"%[1]s"}}}}},
"debian:wheezy:amd64:default":{"arch":"amd64","os":"Debian","release":"wheezy","versions":{"1":{"items":{"r":{"ftype":"root.tar.xz","path":"images/w.tar.xz","sha256":"%[1]s"}}}}},
"alpine:edge:amd64:cloud":{"arch":"amd64","os":"Alpine","release":"edge","variant":"cloud","versions":{"1":{"items":{"r":{"ftype":"squashfs","path":"images/a.squashfs","sha256":"%[1]s"}}}}},
"vm":{"arch":"amd64","os":"Vm","release":"1","versions":{"1":{"items":{"disk":{"ftype":"disk-kvm.img","path":"images/x","sha256":"%[1]s"}}}}},
"out":{"arch":"amd64","os":"Out","release":"1","versions":{"1":{"items":{"r":{"ftype":"root.tar.xz","path":"../../x","sha256":"%[1]s"}}}}},
"away":{"arch":"amd64","os":"Away","release":"1","versions":{"1":{"items":{"r":{"ftype":"root.tar.xz","path":"https://evil/x","sha256":"%[1]s"}}}}},
"nosum":{"arch":"amd64","os":"Nosum","release":"1","versions":{"1":{"items":{"r":{"ftype":"root.tar.xz","path":"images/x"}}}}}}}`

const streamIndexText = `{"format":"index:1.0","index":{"images":{"datatype":"image-downloads","path":"streams/v1/images.json","format":"products:1.0"},"other":{"datatype":"x","path":"../x"}}}`

func TestSimplestreams(t *testing.T) {
	base, roots := serveDocuments(t, map[string]string{
		"/lxc/streams/v1/index.json": streamIndexText, "/lxc/streams/v1/images.json": fmt.Sprintf(streamText, sumA, sumB),
	})
	offers, err := (&Simplestreams{URL: base + "/lxc", Roots: roots}).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"alpine-edge-cloud amd64", "debian-trixie amd64", "debian-trixie arm64", "debian-wheezy amd64"}
	if got := offerNames(offers); !slices.Equal(got, want) {
		t.Fatalf("got %q", got)
	}
	for _, name := range []string{"debian/trixie", "debian"} {
		o, err := Resolve(offers, name, "amd64")
		if err != nil || o.URL != base+"/lxc/images/new.tar.xz" || o.SHA256 != sumB || o.Size != 3 || o.Title != "Debian 13" {
			t.Errorf("%s: got %+v, %v", name, o, err)
		}
		if ref, err := o.Ref(); err != nil || ref.Label != "debian-trixie@20260102_05:24" {
			t.Errorf("got %+v, %v", ref, err)
		}
	}
	if o, err := Resolve(offers, "alpine-edge-cloud", "amd64"); err != nil || !strings.HasSuffix(o.URL, "a.squashfs") {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestNewestRelease(t *testing.T) {
	for _, tt := range []struct{ system, releases, want string }{
		{"Alpine", "3.9 3.22 3.21 edge", "3.22"}, {"Archlinux", "current", "current"}, {"Ubuntu", "noble jammy", ""},
		{"Debian", "bookworm sid trixie", "trixie"}, {"Debian", "bookworm sid", ""}, {"Centos", "9-Stream 10-Stream", "10-Stream"},
		{"Fedora", "41 42", "42"}, {"openSUSE", "15.6 16.0 tumbleweed", "16.0"}, {"Odd", "99999999999999999999 ..", ""},
	} {
		if got := newestRelease(tt.system, strings.Fields(tt.releases)); got != tt.want {
			t.Errorf("%s of %s: got %q, want %q", tt.system, tt.releases, got, tt.want)
		}
	}
}

func TestCatalogueErrors(t *testing.T) {
	long := `{"index":{` + strings.Repeat(" ", maxStreamIndex) + `}}`
	for name, tt := range map[string]struct{ index, want string }{
		"no JSON":          {"<html>", "cannot be read"},
		"nothing":          {"{}", "names 0 lists"},
		"path out":         {`{"index":{"x":{"datatype":"image-downloads","path":"../../x"}}}`, "out of the server's tree"},
		"missing list":     {`{"index":{"x":{"datatype":"image-downloads","path":"x.json"}}}`, "does not have it"},
		"too long":         {long, "more than"},
		"redirect to http": {"to http://192.0.2.1/x", "which is not https"},
		"redirect to file": {"to file:///etc/passwd", "which is not https"},
	} {
		base, roots := serveDocuments(t, map[string]string{"/streams/v1/index.json": tt.index})
		_, err := (&Simplestreams{URL: base, Roots: roots}).List(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	for _, address := range []string{"http://h", "file:///x", "h", "https://"} {
		if _, err := (&WSL{URL: address}).List(t.Context()); err == nil {
			t.Errorf("%s was taken", address)
		}
	}
}

// FuzzCatalogue takes any bytes for a catalogue's documents: whatever is
// offered has a name, an https address and a sum.
func FuzzCatalogue(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(wslText, sumA, sumB)))
	f.Add([]byte(fmt.Sprintf(streamText, sumA, sumB)))
	f.Add([]byte(streamIndexText))
	f.Fuzz(func(t *testing.T, data []byte) {
		parseStreamIndex(data)
		wsl, streams := newDocuments("https://h/x", nil, nil), newDocuments("https://h/x", nil, nil)
		parseWSL(data, wsl)
		parseStreamList(data, streams)
		for _, o := range slices.Concat(wsl.offers, streams.offers) {
			if !offerName(o.Name) || !strings.HasPrefix(o.URL, "https://") || len(o.SHA256) != 64 {
				t.Fatalf("got %+v", o)
			}
		}
		for _, o := range streams.offers {
			if !strings.HasPrefix(o.URL, "https://h/x/") {
				t.Fatalf("offer leads away from the server: %+v", o)
			}
		}
	})
}

// TestServerLies has servers whose files are not what their lists say.
func TestServerLies(t *testing.T) {
	for name, answer := range map[string]string{"file": "to file:///etc/passwd", "http": "to http://192.0.2.1/x", "other bytes": "other"} {
		base, roots := serveDocuments(t, map[string]string{"/x": answer})
		ref, err := Offer{Name: "x", Arch: "amd64", URL: base + "/x", SHA256: sumA}.Ref()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (&images.HTTPS{CacheDir: t.TempDir(), Roots: roots}).Pull(t.Context(), ref, nil); err == nil ||
			!strings.Contains(err.Error(), "which is not https") && !strings.Contains(err.Error(), "not sha256:"+sumA) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
