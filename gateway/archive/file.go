package archive

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	plainEnd  = ".jsonl"
	closedEnd = ".jsonl.gz"
	sumsName  = "SHA256SUMS"
	lockName  = "lock"
)

// A file is one file of an archive.
type file struct {
	month  string // 2026-11
	number int    // of the month, from 1
	closed bool   // compressed
}

func (f file) name() string {
	end := plainEnd
	if f.closed {
		end = closedEnd
	}
	return fmt.Sprintf("%s-%04d%s", f.month, f.number, end)
}

func monthOf(t time.Time) string { return t.In(vietnam()).Format("2006-01") }

// vietnam is UTC+7, without summer time.
func vietnam() *time.Location { return time.FixedZone("+07", 7*60*60) }

// files returns those of a folder, the oldest first. Of one that was being
// closed when the program ended both forms are there: the closed one is whole.
func files(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	pattern := regexp.MustCompile(`^(\d{4}-\d{2})-(\d{4,9})(\.jsonl(?:\.gz)?)$`)
	var list []file
	for _, e := range entries {
		m := pattern.FindStringSubmatch(e.Name())
		if m == nil || !e.Type().IsRegular() {
			continue
		}
		n, _ := strconv.Atoi(m[2]) // at most nine digits
		list = append(list, file{month: m[1], number: n, closed: m[3] == closedEnd})
	}
	slices.SortFunc(list, func(a, b file) int {
		if c := strings.Compare(a.month, b.month); c != 0 {
			return c
		}
		if a.number != b.number {
			return a.number - b.number
		}
		return map[bool]int{true: 0, false: 1}[a.closed] - map[bool]int{true: 0, false: 1}[b.closed]
	})
	return slices.CompactFunc(list, func(a, b file) bool { return a.month == b.month && a.number == b.number }), nil
}

// appendTo adds lines to a file and returns when they are on disk.
func appendTo(path string, lines []byte) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("write the archive: %w", err)
		}
	}()
	if torn(f) {
		lines = append([]byte{'\n'}, lines...)
	}
	if _, err := f.Write(lines); err != nil {
		return err
	}
	return f.Sync()
}

// torn reports whether a file ends within a line.
func torn(f *os.File) bool {
	at, err := f.Stat()
	if err != nil || at.Size() == 0 {
		return false
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, at.Size()-1)
	return err == nil && last[0] != '\n'
}

// shut compresses a file, notes its checksum and removes what it was.
func shut(dir string, f file) error {
	text, err := os.ReadFile(filepath.Join(dir, f.name()))
	if err != nil {
		return fmt.Errorf("close a file of the archive: %w", err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("compress %s: %w", f.name(), err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("compress %s: %w", f.name(), err)
	}
	done := f
	done.closed = true
	sum := sha256.Sum256(packed.Bytes())
	err = replace(dir, done.name(), packed.Bytes())
	if err == nil {
		err = note(dir, func(sums map[string]string) { sums[done.name()] = hex.EncodeToString(sum[:]) })
	}
	if err == nil {
		err = os.Remove(filepath.Join(dir, f.name()))
	}
	if err != nil {
		return fmt.Errorf("close %s of the archive: %w", f.name(), err)
	}
	return nil
}

// replace puts a whole file into the folder at once.
func replace(dir, name string, content []byte) error {
	temporary, err := os.CreateTemp(dir, ".archive-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(content)
	err = errors.Join(err, temporary.Chmod(0o640), temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return syncFolder(dir)
}

func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// sums reads the checksums by file.
func sums(dir string) (map[string]string, error) {
	out := map[string]string{}
	text, err := os.ReadFile(filepath.Join(dir, sumsName))
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	for line := range strings.Lines(string(text)) {
		if sum, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			out[name] = sum
		}
	}
	return out, err
}

// note changes the checksums.
func note(dir string, change func(map[string]string)) error {
	all, err := sums(dir)
	if err != nil {
		return err
	}
	change(all)
	var text strings.Builder
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&text, "%s  %s\n", all[name], name)
	}
	return replace(dir, sumsName, []byte(text.String()))
}

// open returns the lines of a file.
func open(dir string, f file) (io.ReadCloser, error) {
	in, err := os.Open(filepath.Join(dir, f.name()))
	if err != nil || !f.closed {
		return in, err
	}
	unpacked, err := gzip.NewReader(in)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{unpacked, in}, nil
}
