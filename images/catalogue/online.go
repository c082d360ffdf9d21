package catalogue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/lsub/lsub/atomicfile"
)

// Online lists the offers of several catalogues, and keeps them in the cache. A
// catalogue that was asked less than MaxAge ago is not asked again; while it
// cannot be reached, its last answer is used. Online is safe for concurrent use,
// also by several processes.
type Online struct {
	CacheDir   string // lsub's cache directory
	Catalogues []Catalogue
	MaxAge     time.Duration // 0: an hour
	Log        *slog.Logger  // may be nil
}

// Listing is the answer of one catalogue.
type Listing struct {
	Address string
	Asked   time.Time // when the server answered; zero where it never did
	Cached  bool      // the offers come from the cache
	Err     error     // why the server gave no answer; the offers are then old, or none
	Offers  []Offer
}

// Host returns a name for the catalogue that is short enough for a table.
func (l *Listing) Host() string {
	if u, err := url.Parse(l.Address); err == nil && u.Host != "" {
		return u.Host
	}
	return l.Address
}

const (
	catalogueMaxAge  = time.Hour
	catalogueTimeout = 30 * time.Second
)

// List returns a listing per catalogue, in their order; with refresh all of them
// are asked. It takes at most half a minute. A catalogue that fails has an error
// in its listing and does not affect the others.
func (o *Online) List(ctx context.Context, refresh bool) []Listing {
	listings := make([]Listing, len(o.Catalogues))
	var all sync.WaitGroup
	for i, c := range o.Catalogues {
		all.Go(func() { listings[i] = o.listing(ctx, c, refresh) })
	}
	all.Wait()
	return listings
}

// Offers returns the offers of all listings, in their order.
func Offers(listings []Listing) []Offer {
	var all []Offer
	for _, l := range listings {
		all = append(all, l.Offers...)
	}
	return all
}

func (o *Online) listing(ctx context.Context, c Catalogue, refresh bool) Listing {
	maxAge := o.MaxAge
	if maxAge == 0 {
		maxAge = catalogueMaxAge
	}
	cached := o.read(c.Address())
	age := time.Since(cached.Asked)
	if age >= 0 && age < maxAge && !refresh { // a clock that was set back makes it old
		return cached
	}
	ctx, cancel := context.WithTimeoutCause(ctx, catalogueTimeout, fmt.Errorf("%s has not answered within %v", cached.Host(), catalogueTimeout))
	defer cancel()
	offers, err := c.List(ctx)
	if err != nil {
		cached.Err = err
		return cached
	}
	l := Listing{Address: c.Address(), Asked: time.Now().UTC(), Offers: offers}
	if err := o.write(&l); err != nil {
		o.warn("keep what a catalogue offers", l.Address, err)
	}
	return l
}

// keptListing is a Listing as the cache has it.
type keptListing struct {
	Version int       `json:"version"` // of this form: 1
	Address string    `json:"address"`
	Asked   time.Time `json:"asked"`
	Offers  []Offer   `json:"offers"`
}

func (o *Online) path(address string) string {
	sum := sha256.Sum256([]byte(address))
	return filepath.Join(o.CacheDir, "catalogues", hex.EncodeToString(sum[:8])+".json")
}

// read returns what the cache has of a catalogue, which may be nothing.
func (o *Online) read(address string) Listing {
	l := Listing{Address: address}
	data, err := os.ReadFile(o.path(address))
	if errors.Is(err, fs.ErrNotExist) {
		return l
	}
	var kept keptListing
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err != nil || kept.Version != 1 || kept.Address != address {
		o.warn("what a catalogue offered cannot be read", address, err)
		return l
	}
	l.Asked, l.Cached = kept.Asked, true
	l.Offers = slices.DeleteFunc(kept.Offers, func(o Offer) bool { return o.usable() != nil })
	return l
}

// write replaces what the cache has of a catalogue, whole.
func (o *Online) write(l *Listing) error {
	data, err := json.Marshal(keptListing{1, l.Address, l.Asked, l.Offers})
	if err != nil {
		return err
	}
	path := o.path(l.Address)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(path, data, 0o600)
}

func (o *Online) warn(text, address string, err error) {
	if o.Log != nil {
		o.Log.Warn(text, "catalogue", address, "err", err)
	}
}
