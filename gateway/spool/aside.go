package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// asideFolder holds damaged files as they were found, <Dir>/aside/<stream>-<file>.<time>,
// for whoever wants to read more out of them. The oldest go when there are more
// than maxAside files or maxAsideBytes.
const (
	asideFolder   = "aside"
	maxAside      = 64
	maxAsideBytes = 256 << 20
)

// keepAside gives a file a second name in the folder aside, so that it can be
// replaced; "" when there is no such file.
func keepAside(dir, path, stream string) (string, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	folder := filepath.Join(dir, asideFolder)
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return "", err
	}
	stem := filepath.Join(folder, fmt.Sprintf("%s-%s.%s", stream, filepath.Base(path), time.Now().UTC().Format("20060102T150405Z")))
	name := stem
	for n := 2; ; n++ {
		err := os.Link(path, name)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) || n > maxAside {
			return "", fmt.Errorf("set a damaged file aside: %w", err)
		}
		name = fmt.Sprintf("%s-%d", stem, n)
	}
	return name, errors.Join(thinAside(folder), syncFolder(folder))
}

// thinAside keeps the folder within its bounds; the newest file stays.
func thinAside(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		if at, err := e.Info(); err == nil {
			files = append(files, at)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return cmp.Compare(asideTime(b), asideTime(a)) })
	var total int64
	for i, file := range files {
		if total += file.Size(); i > 0 && (i >= maxAside || total > maxAsideBytes) {
			if err := os.Remove(filepath.Join(folder, file.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// asideTime is the part of a name that tells when the file was set aside.
func asideTime(file fs.FileInfo) string { return filepath.Ext(file.Name()) }
