package spool

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

// Snapshot hands over the files of the embedded log as they are at one instant:
// what a power cut at that instant would leave, so that a log opened on a copy of
// them has each record that was acknowledged before, and followers go on where
// their positions were. Nothing is written while the files are opened; that
// takes milliseconds, reading them is the caller's and disturbs nobody.
//
// take gets a path below Options.Dir with slashes and the content, of size bytes;
// it closes it, also when Snapshot fails. Of a log in a cluster there is nothing to hand over.
func (s *Spool) Snapshot(take func(name string, content io.ReadCloser, size int64)) error {
	if s.config.URL != "" {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.serving.Err() != nil {
		return ErrClosed
	}
	err := filepath.WalkDir(s.options.Dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != s.options.Dir {
			return nil // a cursor's, gone with it
		}
		if entry.IsDir() && entry.Name() == asideFolder {
			return fs.SkipDir
		}
		if err != nil || !entry.Type().IsRegular() || entry.Name() == "lock" {
			return err
		}
		content, size, err := openPart(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.options.Dir, path)
		take(filepath.ToSlash(name), content, size)
		return err
	})
	if err != nil {
		return fmt.Errorf("take a snapshot of the log: %w", err)
	}
	return nil
}

// openPart opens a block of messages, which only ever grows at its end or is
// replaced by another file, and reads any other file, which may be written over.
func openPart(path string) (io.ReadCloser, int64, error) {
	if !strings.HasSuffix(path, ".blk") {
		text, err := os.ReadFile(path)
		return io.NopCloser(bytes.NewReader(text)), int64(len(text)), err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	at, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, at.Size(), nil
}
