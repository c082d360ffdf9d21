package catalogue

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// WSL is the Catalogue in a DistributionInfo.json, as WSL reads it:
// https://learn.microsoft.com/windows/wsl/build-custom-distro. Its
// ModernDistributions are offered; the older ones are Windows programs.
type WSL struct {
	URL string       // of the manifest
	Log *slog.Logger // told about entries that are left out; may be nil

	// Roots are the authorities to trust; nil means the host's.
	Roots *x509.CertPool
}

var _ Catalogue = (*WSL)(nil)

const maxWSLManifest = 8 << 20

// wslManifest is what is read of a DistributionInfo.json.
type wslManifest struct {
	ModernDistributions map[string][]struct {
		Name, FriendlyName string
		Default            bool
		Amd64Url, Arm64Url wslDownload
	}
}

type wslDownload struct{ Url, Sha256 string }

// Address returns the manifest's URL.
func (w *WSL) Address() string { return w.URL }

// List asks for the manifest. The default entry of a flavor has the flavor's
// name as an alias.
func (w *WSL) List(ctx context.Context) ([]Offer, error) {
	d := newDocuments(w.URL, w.Roots, w.Log)
	data, err := d.get(ctx, "", maxWSLManifest)
	if err != nil {
		return nil, err
	}
	if err := parseWSL(data, d); err != nil {
		return nil, fmt.Errorf("catalogue %s: %w", w.URL, err)
	}
	return d.offers, nil
}

func parseWSL(data []byte, d *documents) error {
	var m wslManifest
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	if m.ModernDistributions == nil {
		return errors.New("has no ModernDistributions")
	}
	for _, flavor := range slices.Sorted(maps.Keys(m.ModernDistributions)) {
		for _, e := range m.ModernDistributions[flavor] {
			o := Offer{Name: e.Name, Title: e.FriendlyName}
			if e.Default {
				o.Aliases = []string{strings.ToLower(flavor)}
			}
			for _, from := range []struct {
				arch string
				wslDownload
			}{{"amd64", e.Amd64Url}, {"arm64", e.Arm64Url}} {
				if from.Url == "" {
					continue // not for this architecture
				}
				o.Arch, o.URL, o.SHA256 = from.arch, from.Url, from.Sha256
				o.Aliases = slices.Clone(o.Aliases)
				d.add(o)
			}
		}
	}
	return nil
}
