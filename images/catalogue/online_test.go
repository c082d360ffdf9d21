package catalogue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// testCatalogue offers what it is told to, and counts who asks.
type testCatalogue struct {
	address string
	names   []string
	err     error
	asked   int
}

func (c *testCatalogue) Address() string { return c.address }

func (c *testCatalogue) List(context.Context) ([]Offer, error) {
	c.asked++
	var offers []Offer
	for _, name := range c.names {
		offers = append(offers, Offer{Name: name, Arch: "amd64", URL: "https://h/" + name, SHA256: sumA})
	}
	return offers, c.err
}

func TestOnline(t *testing.T) {
	a := &testCatalogue{address: "https://a.example/x.json", names: []string{"one"}}
	b := &testCatalogue{address: "https://b.example", err: errors.New("b is away")}
	o := &Online{CacheDir: t.TempDir(), Catalogues: []Catalogue{a, b}}
	l := o.List(t.Context(), false)
	if l[0].Cached || l[0].Err != nil || len(l[0].Offers) != 1 || time.Since(l[0].Asked) > time.Minute {
		t.Errorf("got %+v", l[0])
	}
	if l[1].Err != b.err || len(l[1].Offers) != 0 || !l[1].Asked.IsZero() || l[1].Host() != "b.example" {
		t.Errorf("got %+v", l[1])
	}

	// A second time the one is not asked, and the other again.
	b.names, b.err = []string{"two", "three"}, nil
	l = o.List(t.Context(), false)
	if !l[0].Cached || a.asked != 1 || b.asked != 2 || len(Offers(l)) != 3 {
		t.Errorf("got %+v, asked %d and %d times", l, a.asked, b.asked)
	}

	// What is old serves while the server is away, and only then.
	a.err, b.names = errors.New("a is away"), []string{"four"}
	l = o.List(t.Context(), true)
	if !l[0].Cached || l[0].Err != a.err || len(l[0].Offers) != 1 || l[0].Asked.IsZero() {
		t.Errorf("got %+v", l[0])
	}
	if l[1].Cached || l[1].Offers[0].Name != "four" {
		t.Errorf("got %+v", l[1])
	}
	o.MaxAge = time.Nanosecond
	if l = o.List(t.Context(), false); l[0].Err == nil || l[1].Cached || a.asked != 3 {
		t.Errorf("got %+v, asked %d times", l, a.asked)
	}
}

// TestOnlineCacheTrouble has a cache that is damaged, and one that lies.
func TestOnlineCacheTrouble(t *testing.T) {
	a := &testCatalogue{address: "https://a.example", names: []string{"one"}}
	o := &Online{CacheDir: t.TempDir(), Catalogues: []Catalogue{a}}
	for name, text := range map[string]string{
		"damaged":       "{",
		"other form":    `{"version":2,"address":"https://a.example","asked":"` + time.Now().Format(time.RFC3339) + `"}`,
		"other address": `{"version":1,"address":"https://b.example","asked":"` + time.Now().Format(time.RFC3339) + `"}`,
		"from tomorrow": `{"version":1,"address":"https://a.example","asked":"` + time.Now().Add(24*time.Hour).Format(time.RFC3339) + `"}`,
	} {
		a.asked = 0
		if err := errors.Join(os.MkdirAll(filepath.Dir(o.path(a.address)), 0o700), os.WriteFile(o.path(a.address), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		if l := o.List(t.Context(), false); l[0].Cached || a.asked != 1 || len(l[0].Offers) != 1 {
			t.Errorf("%s: got %+v", name, l)
		}
	}
	kept := `{"version":1,"address":"https://a.example","asked":"` + time.Now().Format(time.RFC3339) + `","offers":[
		{"name":"x","url":"file:///etc/passwd","sha256":"` + sumA + `"},{"name":"\u001b","url":"https://h/x","sha256":"` + sumA + `"}]}`
	if err := os.WriteFile(o.path(a.address), []byte(kept), 0o600); err != nil {
		t.Fatal(err)
	}
	if l := o.List(t.Context(), false); !l[0].Cached || len(l[0].Offers) != 0 {
		t.Errorf("got %+v", l)
	}
	// Without a cache directory it works all the same.
	o.CacheDir = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(o.CacheDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l := o.List(t.Context(), false); l[0].Err != nil || len(l[0].Offers) != 1 {
		t.Errorf("got %+v", l)
	}
}
