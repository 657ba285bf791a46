package influx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// snapshotTries bounds how often a snapshot begins anew because the engine has
// replaced a file meanwhile.
const snapshotTries = 50

// Snapshot hands over the files of the embedded engine from which it can be
// opened again with every point that was written before the call; points that
// are written meanwhile may be in it. Writing goes on.
//
// take gets a path below the store's folder with slashes and the content, of
// size bytes; it closes it, also when Snapshot fails: then what it has got is of
// no use. Of a server elsewhere there is nothing to hand over.
func (s *Store) Snapshot(take func(name string, content io.ReadCloser, size int64)) error {
	s.inflight.RLock()
	defer s.inflight.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	if s.engine == nil {
		return nil
	}
	for tries := 1; ; tries++ {
		parts, err := s.parts()
		if err == nil {
			for _, p := range parts {
				take(p.name, p.content, p.size)
			}
			return nil
		}
		for _, p := range parts {
			err = errors.Join(err, p.content.Close())
		}
		if !errors.Is(err, fs.ErrNotExist) || tries == snapshotTries {
			return fmt.Errorf("take a snapshot of InfluxDB: %w", err)
		}
	}
}

type part struct {
	name    string
	content io.ReadCloser
	size    int64
}

// parts opens the files. The write-ahead log comes first: the engine removes a
// segment only after its points are in a data file. What it makes anew from these
// (the series file, the fields' index) is left out.
func (s *Store) parts() ([]part, error) {
	var parts []part
	for _, folder := range []string{"wal", "data", "meta"} {
		err := filepath.WalkDir(filepath.Join(s.dir, folder), func(path string, entry fs.DirEntry, err error) error {
			gone := folder == "wal" && errors.Is(err, fs.ErrNotExist) // its points are in a data file
			switch {
			case gone:
				return nil
			case err != nil:
				return err
			case entry.IsDir() && entry.Name() == "_series":
				return fs.SkipDir
			case !entry.Type().IsRegular() || !lasts(folder, entry.Name()):
				return nil
			}
			p, err := openPart(path)
			if folder == "wal" && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			name, err := filepath.Rel(s.dir, path)
			p.name = filepath.ToSlash(name)
			parts = append(parts, p)
			return err
		})
		if err != nil {
			return parts, err
		}
	}
	return parts, nil
}

// lasts tells what is a part of the store from what is on its way.
func lasts(folder, name string) bool {
	switch folder {
	case "wal":
		return strings.HasSuffix(name, ".wal")
	case "data":
		return strings.HasSuffix(name, ".tsm") || strings.HasSuffix(name, ".tombstone")
	}
	return !strings.HasSuffix(name, ".tmp")
}

// openPart opens a segment of the write-ahead log, which only grows, or a data
// file, which never changes; any other file is read.
func openPart(path string) (part, error) {
	if !strings.HasSuffix(path, ".wal") && !strings.HasSuffix(path, ".tsm") {
		text, err := os.ReadFile(path)
		return part{content: io.NopCloser(bytes.NewReader(text)), size: int64(len(text))}, err
	}
	file, err := os.Open(path)
	if err != nil {
		return part{}, err
	}
	at, err := file.Stat()
	if err != nil {
		return part{}, errors.Join(err, file.Close())
	}
	return part{content: file, size: at.Size()}, nil
}

// makeShards makes the folder of each shard that has a write-ahead log only: the
// engine looks for shards among the data files, and would find it by the next
// write to it at the earliest.
func makeShards(dir string) error {
	logs, err := filepath.Glob(filepath.Join(dir, "wal", Database, policy, "*"))
	if err != nil {
		return fmt.Errorf("list the shards of InfluxDB: %w", err)
	}
	for _, log := range logs {
		if err := os.MkdirAll(filepath.Join(dir, "data", Database, policy, filepath.Base(log)), 0o750); err != nil {
			return fmt.Errorf("make the folder of a shard of InfluxDB: %w", err)
		}
	}
	return nil
}
