package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
)

//go:embed assets
var assets embed.FS

// An Asset is one file that pages refer to.
type Asset struct {
	Type string // media type
	Body []byte
	Hash string // of the body; its URL carries it, so that it never changes under one

	pack func() ([]byte, error) // once
}

// Gzip returns the body compressed.
func (a *Asset) Gzip() ([]byte, error) { return a.pack() }

type assetSet struct{ byName map[string]*Asset }

func readAssets() (*assetSet, error) {
	types := map[string]string{
		".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".json": "application/json",
		".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
	}
	set := &assetSet{map[string]*Asset{}}
	err := fs.WalkDir(assets, "assets", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		kind, ok := types[path.Ext(name)]
		if !ok {
			return fmt.Errorf("%s: expected one of css, js, json, svg, txt", name)
		}
		sum := sha256.Sum256(body)
		set.byName[strings.TrimPrefix(name, "assets/")] = &Asset{Type: kind, Body: body, Hash: hex.EncodeToString(sum[:6]),
			pack: sync.OnceValues(func() ([]byte, error) { return Compress(body) })}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the assets of the pages: %w", err)
	}
	return set, nil
}

// url is where a page finds an asset.
func (s *assetSet) url(name string) (string, error) {
	a, ok := s.byName[name]
	if !ok {
		return "", fmt.Errorf("there is no asset %q", name)
	}
	return "/assets/" + name + "?v=" + a.Hash, nil
}

// Compress returns the text as gzip.
func Compress(text []byte) ([]byte, error) {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed+4)
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return packed.Bytes(), nil
}
