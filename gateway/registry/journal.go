package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Bounds of the audit on disk.
const (
	maxJournal  = 8 << 20 // bytes of one file
	oldJournals = 2       // files before it
)

// A journal is a file of JSON objects, a line each, that grows at its end.
type journal struct{ path string }

// append adds a line and returns when it is on disk.
func (j *journal) append(a Audit) (err error) {
	line, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("write the audit: %w", err)
	}
	if err := j.rotate(len(line)); err != nil {
		return fmt.Errorf("write the audit: %w", err)
	}
	file, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("write the audit: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = fmt.Errorf("write the audit: %w", err)
		}
	}()
	if torn(file) { // the last line was cut by a crash: it is told by its missing end
		line = append([]byte{'\n'}, line...)
	}
	if _, err := file.Write(append(line, '\n')); err != nil {
		return err
	}
	return errors.Join(file.Sync(), syncFolder(filepath.Dir(j.path)))
}

// torn reports whether the file ends within a line.
func torn(file *os.File) bool {
	at, err := file.Stat()
	if err != nil || at.Size() == 0 {
		return false
	}
	last := make([]byte, 1)
	_, err = file.ReadAt(last, at.Size()-1)
	return err == nil && last[0] != '\n'
}

// rotate makes room for a line.
func (j *journal) rotate(line int) error {
	at, err := os.Stat(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || at.Size()+int64(line) < maxJournal {
		return err
	}
	for n := oldJournals; n > 0; n-- {
		if err := os.Rename(j.file(n-1), j.file(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// file is the name of the nth file before the newest.
func (j *journal) file(n int) string {
	if n == 0 {
		return j.path
	}
	return fmt.Sprintf("%s.%d", j.path, n)
}

// newest returns changes, the newest first. Lines that a crash has cut are
// passed over.
func (j *journal) newest(device string, limit int) ([]Audit, error) {
	var out []Audit
	for n := 0; n <= oldJournals; n++ {
		text, err := os.ReadFile(j.file(n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the audit: %w", err)
		}
		for _, line := range slices.Backward(bytes.Split(text, []byte{'\n'})) {
			var a Audit
			if len(line) == 0 || json.Unmarshal(line, &a) != nil || device != "" && a.Device != device {
				continue
			}
			if out = append(out, a); len(out) == limit {
				return out, nil
			}
		}
	}
	return out, nil
}

// catchUp writes the newest change when a crash came before it was written.
func (j *journal) catchUp(last *Audit) error {
	if last == nil {
		return nil
	}
	has, err := j.newest("", 1)
	if err != nil || len(has) == 1 && has[0].N >= last.N {
		return err
	}
	return j.append(*last)
}
