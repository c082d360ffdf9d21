package images

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

// WSLCatalogue is the Catalogue in a DistributionInfo.json, as WSL reads it:
// https://learn.microsoft.com/windows/wsl/build-custom-distro. Its
// ModernDistributions are offered; the older ones are Windows programs.
type WSLCatalogue struct {
	URL  string       // of the manifest
	Arch string       // as GOARCH; "" is the host's
	Log  *slog.Logger // told about entries that are left out; may be nil

	roots *x509.CertPool
}

var _ Catalogue = (*WSLCatalogue)(nil)

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

// List asks for the manifest. The default entry of a flavor has the flavor's
// name as an alias.
func (w *WSLCatalogue) List(ctx context.Context) ([]Offer, error) {
	d := newDocuments(w.URL, w.Arch, w.roots, w.Log)
	data, err := d.get(ctx, "", maxWSLManifest)
	if err != nil {
		return nil, err
	}
	offers, err := parseWSL(data, d)
	if err != nil {
		return nil, fmt.Errorf("catalogue %s: %w", w.URL, err)
	}
	return offers, nil
}

func parseWSL(data []byte, d documents) ([]Offer, error) {
	var m wslManifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if m.ModernDistributions == nil {
		return nil, errors.New("has no ModernDistributions")
	}
	var offers []Offer
	for _, flavor := range slices.Sorted(maps.Keys(m.ModernDistributions)) {
		for _, e := range m.ModernDistributions[flavor] {
			from := e.Amd64Url
			if d.arch != "amd64" {
				from = e.Arm64Url
			}
			if from.Url == "" || d.arch != "amd64" && d.arch != "arm64" {
				continue // not for this architecture
			}
			o := Offer{Name: e.Name, Title: e.FriendlyName, URL: from.Url, SHA256: from.Sha256}
			if e.Default {
				o.Aliases = []string{strings.ToLower(flavor)}
			}
			offers = d.add(offers, o)
		}
	}
	return offers, nil
}
