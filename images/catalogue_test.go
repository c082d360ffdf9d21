package images

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/hint"
)

var sumA, sumB = strings.Repeat("a", 64), strings.Repeat("b", 64)

// serveDocuments serves texts by their paths.
func serveDocuments(t *testing.T, docs map[string]string) (base string, roots *x509.CertPool) {
	s, roots := serveWeb(t, func(w http.ResponseWriter, r *http.Request) {
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
	})
	return s.URL, roots
}

const wslText = `{"Default":"Ubuntu","Distributions":[{"Name":"old"}],"ModernDistributions":{
"Ubuntu":[
 {"Name":"Ubuntu","FriendlyName":"Ubuntu \u001b[2J","Default":true,"Amd64Url":{"Url":"https://h/u.wsl","Sha256":"0x%[1]s"},"Arm64Url":{"Url":"https://h/u-arm.wsl","Sha256":"%[2]s"}},
 {"Name":"Ubuntu-24.04","FriendlyName":"Ubuntu 24.04 LTS","Amd64Url":{"Url":"https://h/u24.wsl","Sha256":"%[2]s"}},
 {"Name":"Ubuntu-24.04","FriendlyName":"again","Amd64Url":{"Url":"https://h/evil.wsl","Sha256":"%[1]s"}}],
"AlmaLinux":[{"Name":"AlmaLinux-10","FriendlyName":"AlmaLinux OS 10","Default":true,"Amd64Url":{"Url":"https://h/a.wsl","Sha256":"%[1]s"}}],
"Liars":[
 {"Name":"plain","Amd64Url":{"Url":"http://h/x","Sha256":"%[1]s"}},
 {"Name":"file","Amd64Url":{"Url":"file:///x","Sha256":"%[1]s"}},
 {"Name":"nosum","Amd64Url":{"Url":"https://h/x"}},
 {"Name":"badsum","Amd64Url":{"Url":"https://h/x","Sha256":"0x12"}},
 {"Name":"bad \u001b name","Amd64Url":{"Url":"https://h/x","Sha256":"%[1]s"}}]}}`

func TestWSLCatalogue(t *testing.T) {
	base, roots := serveDocuments(t, map[string]string{"/info.json": fmt.Sprintf(wslText, sumA, sumB)})
	offers, err := (&WSLCatalogue{URL: base + "/info.json", Arch: "amd64", roots: roots}).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := offerNames(offers); !slices.Equal(got, []string{"almalinux-10", "ubuntu", "ubuntu-24.04"}) {
		t.Fatalf("got %q", got)
	}
	for name, want := range map[string]string{"almalinux": "https://h/a.wsl", "Ubuntu": "https://h/u.wsl", "ubuntu-24.04": "https://h/u24.wsl"} {
		o, err := Resolve(offers, name)
		if err != nil || o.URL != want {
			t.Errorf("%s: got %+v, %v", name, o, err)
		}
		if ref, err := o.Ref(); err != nil || ref.String() != want || len(ref.SHA256) != 64 {
			t.Errorf("%s: got %+v, %v", name, ref, err)
		}
	}
	if offers[1].Title != "Ubuntu [2J" || offers[1].SHA256 != sumA {
		t.Errorf("got %+v", offers[1])
	}
	if _, err := Resolve(offers, "ubuntu-"); err == nil || !strings.Contains(hint.Of(err), "ubuntu-24.04") {
		t.Errorf("got %v, hint %q", err, hint.Of(err))
	}
	arm, err := (&WSLCatalogue{URL: base + "/info.json", Arch: "arm64", roots: roots}).List(t.Context())
	if err != nil || len(arm) != 1 || arm[0].URL != "https://h/u-arm.wsl" || arm[0].SHA256 != sumB {
		t.Errorf("got %+v, %v", arm, err)
	}
}

func offerNames(offers []Offer) []string {
	var names []string
	for _, o := range offers {
		names = append(names, o.Name)
	}
	return names
}

const streamText = `{"format":"products:1.0","products":{
"debian:trixie:amd64:default":{"arch":"amd64","os":"Debian","release":"trixie","release_title":"13","variant":"default","aliases":"debian/trixie/default,debian/trixie","versions":{
 "20260101_05:24":{"items":{"root.tar.xz":{"ftype":"root.tar.xz","path":"images/old.tar.xz","sha256":"%[1]s","size":1}}},
 "20260102_05:24":{"items":{"root.squashfs":{"ftype":"squashfs","path":"images/new.squashfs","sha256":"%[1]s","size":2},"root.tar.xz":{"ftype":"root.tar.xz","path":"images/new.tar.xz","sha256":"%[2]s","size":3}}}}},
"debian:trixie:arm64:default":{"arch":"arm64","os":"Debian","release":"trixie","versions":{"1":{"items":{"r":{"ftype":"root.tar.xz","path":"images/arm.tar.xz","sha256":"%[1]s"}}}}},
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
	offers, err := (&Simplestreams{URL: base + "/lxc", Arch: "amd64", roots: roots}).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := offerNames(offers); !slices.Equal(got, []string{"alpine-edge-cloud", "debian-trixie"}) {
		t.Fatalf("got %q", got)
	}
	o, err := Resolve(offers, "debian/trixie")
	if err != nil || o.URL != base+"/lxc/images/new.tar.xz" || o.SHA256 != sumB || o.Size != 3 || o.Version != "20260102_05:24" || o.Title != "Debian 13" {
		t.Errorf("got %+v, %v", o, err)
	}
	if o, err = Resolve(offers, "alpine-edge-cloud"); err != nil || !o.Squashfs {
		t.Errorf("got %+v, %v", o, err)
	}
	if _, err := o.Ref(); err == nil || !strings.Contains(err.Error(), "squashfs") {
		t.Errorf("got %v", err)
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
		_, err := (&Simplestreams{URL: base, roots: roots}).List(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	for _, address := range []string{"http://h", "file:///x", "h", "https://"} {
		if _, err := (&WSLCatalogue{URL: address}).List(t.Context()); err == nil {
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
		d := newDocuments("https://h/x", "amd64", nil, nil)
		wsl, _ := parseWSL(data, d)
		streams, _ := parseStreamList(data, d, nil)
		for _, o := range append(wsl, streams...) {
			if !offerName(o.Name) || !strings.HasPrefix(o.URL, "https://") || len(o.SHA256) != 64 {
				t.Fatalf("got %+v", o)
			}
		}
		for _, o := range streams {
			if !strings.HasPrefix(o.URL, "https://h/x/") {
				t.Fatalf("offer leads away from the server: %+v", o)
			}
		}
	})
}
