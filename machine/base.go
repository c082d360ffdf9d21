package machine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/profile"
)

const (
	// maxBase is the most bytes of a file that a profile builds on.
	maxBase = 1 << 20
	// baseTimeout bounds a download of one.
	baseTimeout = 30 * time.Second
)

// ProfileSource says where what a profile's file builds on comes from: relative paths start in
// dir, and set has values of params. What an address has is kept by its digest.
func (m *Machine) ProfileSource(dir string, set map[string]string) profile.Source {
	return profile.Source{
		Dir: dir, Set: set, File: readBase,
		Fetch: func(url, sum string) ([]byte, error) {
			return fetchBase(http.DefaultClient, filepath.Join(m.cfg.Paths.Cache, "bases"), url, sum)
		},
	}
}

func readBase(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	return io.ReadAll(io.LimitReader(f, maxBase+1)) // who parses it refuses more
}

// fetchBase returns the file of a digest: from the cache, or from its address.
func fetchBase(client *http.Client, cache, url, sum string) ([]byte, error) {
	path := filepath.Join(cache, sum)
	if data, err := os.ReadFile(path); err == nil && digest(data) == sum {
		return data, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), baseTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: the answer is %s", url, res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxBase+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxBase:
		return nil, fmt.Errorf("%s has more than %d bytes", url, maxBase)
	case digest(data) != sum:
		return nil, hint.New(fmt.Errorf("%s has another SHA-256: %s", url, digest(data)), "look at the file, and write its digest if it is the one that you want")
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return nil, err
	}
	return data, atomicfile.Write(path, data, 0o600)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
