package names

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func TestParseResolvConf(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "{[127.0.0.1:53] [] []}",
		"nameserver 192.0.2.1\n": "{[192.0.2.1:53] [] []}",
		"# nameserver 1.1.1.1\n; x y\n nameserver\t192.0.2.1 # x\nnameserver fe80::1%eth0\nnameserver bad\nnameserver 2001:db8::1\nnameserver 192.0.2.4\n": "{[192.0.2.1:53 [fe80::1%eth0]:53 [2001:db8::1]:53] [] []}",
		"domain a.example\nsearch B.example. c.example .\nnameserver ::ffff:192.0.2.1\r\noptions ndots:3\n":                                                "{[192.0.2.1:53] [b.example c.example] []}",
		"search a.example\ndomain b.example": "{[127.0.0.1:53] [b.example] []}",
	} {
		if got := fmt.Sprint(ParseResolvConf([]byte(text))); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestParseScutil(t *testing.T) {
	text := `DNS configuration

resolver #1
  search domain[0] : home.example
  search domain[1] : Corp.Example
  nameserver[0] : 192.0.2.1
  nameserver[1] : fe80::1%en0
  if_index : 6 (en0)
  flags    : Request A records
  reach    : 0x00020002 (Reachable,Directly Reachable Address)

resolver #2
  domain   : local
  options  : mdns
  timeout  : 5
  order    : 300000

resolver #3
  domain   : corp.example.
  nameserver[0] : 192.0.2.53
  port     : 5353
  order    : 101000

DNS configuration (for scoped queries)

resolver #1
  nameserver[0] : 192.0.2.99
`
	want := "{[192.0.2.1:53 [fe80::1%en0]:53] [home.example corp.example] [{corp.example [192.0.2.53:5353]}]}"
	if got := fmt.Sprint(ParseScutil([]byte(text))); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := fmt.Sprint(ParseScutil(nil)); got != "{[] [] []}" {
		t.Error(got)
	}
}

// TestWatched changes a file in the ways of editors and daemons.
func TestWatched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	w := &watched[string]{path: path, parse: func(b []byte) string { return string(b) }}
	want := func(text string) {
		t.Helper()
		for range 2 {
			if got := w.get(); got != text {
				t.Fatalf("%q, want %q", got, text)
			}
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want("")
	check(os.WriteFile(path, []byte("one"), 0o600))
	want("one")
	check(os.WriteFile(path, []byte("two"), 0o600)) // same size, maybe the same time
	want("two")
	old := time.Now().Add(-time.Hour)
	check(os.Chtimes(path, old, old))
	want("two")
	check(os.WriteFile(path+"~", []byte("six"), 0o600)) // a new file with the same time and size
	check(os.Chtimes(path+"~", old, old))
	check(os.Rename(path+"~", path))
	want("six")
	check(os.Remove(path))
	want("")
	check(os.Symlink("elsewhere", path))
	want("")
	check(os.WriteFile(filepath.Join(filepath.Dir(path), "elsewhere"), []byte("far"), 0o600))
	want("far")
}

func FuzzFiles(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\nsearch a b\n"))
	f.Add([]byte("127.0.0.1 a b # c\n::1%x y\n"))
	f.Add([]byte("\nresolver #1\n  nameserver[0] : 192.0.2.1\n  domain : x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range []Resolv{ParseResolvConf(data), ParseScutil(data)} {
			for _, s := range c.Servers {
				if !s.IsValid() || s.Port() == 0 {
					t.Fatalf("%q: %v", data, s)
				}
			}
			for _, d := range c.Search {
				if d == "" {
					t.Fatalf("%q: an empty search domain", data)
				}
			}
		}
		h := ParseHosts(data)
		for addr, name := range h.Names {
			if _, ok := h.Addrs[name]; name != "" && !ok {
				t.Fatalf("%q: %v is %s, which has no address", data, addr, name)
			}
		}
		if again := ParseHosts(data); !reflect.DeepEqual(h, again) {
			t.Fatal("not the same twice")
		}
	})
}

func TestReverseName(t *testing.T) {
	for in, want := range map[string]string{
		"1.2.0.192.in-addr.arpa.": "192.0.2.1", "256.2.0.192.in-addr.arpa.": "", "2.0.192.in-addr.arpa.": "", "x.in-addr.arpa.": "", "example.": "",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.": "2001:db8::1",
		"g.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.": "",
		"1.0.ip6.arpa.": "",
	} {
		got, ok := reverseName(in)
		if ok != (want != "") || ok && got != netip.MustParseAddr(want) {
			t.Errorf("%s: %v, %v", in, got, ok)
		}
	}
}
