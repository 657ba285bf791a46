// Package rulebook keeps what people change of rule files while the gateway runs:
// every version of every file, who changed it, when and why.
//
// # Contract
//
// The files of the configuration are what a gateway starts from, and they may lie
// in a folder that it cannot write. What is changed at run time lies on top of
// them: for each changed file its whole text, comments and all, and what the
// configuration's file said when that was written (its base). See Apply for what
// holds when a file was changed on both sides.
//
// Versions are numbered from 1 and only ever added. Commit names the version that
// its author saw; when somebody was faster the error is a *Conflict with that
// version. A version is in the book when Commit returns: on disk and synced.
//
// # What lies on the disk
//
//	<data>/rules/history.jsonl    a line for each version: CRC-32C in hexadecimal, a space, a JSON object
//	<data>/rules/texts/<sha256>    each text once, named after the SHA-256 of it
//
// Both are plain text. history.jsonl is the first by name: a backup that copies
// files in that order has the texts of every version that it has. A last line without its end was cut by a crash before the
// version was acknowledged: it is dropped. Any other damage is an error of Open,
// with the line, and nothing is changed on disk. A text whose sum is wrong is an
// error of Text.
package rulebook

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Bounds of a book.
const (
	MaxText     = 256 << 10 // bytes of one file
	MaxFiles    = 256       // that are changed at a time
	MaxVersions = 10_000
	maxLog      = 64 << 20 // bytes of history.jsonl
)

// What a version does.
const (
	Edit   = "edit"   // a file has a new text
	Revert = "revert" // one file or all are as they were in an earlier version
	Follow = "follow" // one file or all follow the configuration again
)

// A Version is the state of all changed files from a change on.
type Version struct {
	N       int             `json:"n"`
	At      time.Time       `json:"at"`
	By      string          `json:"by"`
	Why     string          `json:"why"`
	Do      string          `json:"do"`
	To      int             `json:"to,omitempty"` // of a revert: the version that is in force again
	Changed []string        `json:"changed"`      // files whose text this version changes
	Files   map[string]File `json:"files"`        // every file that is not as the configuration has it
}

// A File is one file that was changed at run time. Both are sums of texts, "" for
// a file that is not there.
type File struct {
	Text string `json:"text"`
	Base string `json:"base"` // what the configuration's file was when Text was written
}

// A Conflict says that somebody has changed the rules meanwhile.
type Conflict struct{ Seen, Now Version }

// Error tells who it was.
func (c *Conflict) Error() string {
	return fmt.Sprintf("version %d was changed meanwhile: version %d is of %s at %s (%s)", c.Seen.N, c.Now.N, c.Now.By, c.Now.At.Format(time.RFC3339), c.Now.Why)
}

// ErrNoVersion is the error of a version that the book does not have.
var ErrNoVersion = errors.New("there is no such version of the rules")

// A Book is safe for concurrent use.
type Book struct {
	dir string

	mu       sync.Mutex
	versions []Version
	size     int64 // of history.jsonl
}

// Open reads the book of a data folder; there need not be one. Nothing is written
// before the first Commit.
func Open(data string) (*Book, error) {
	b := &Book{dir: filepath.Join(data, "rules")}
	text, err := os.ReadFile(b.log())
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the versions of the rules: %w", err)
	}
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	for i, line := range bytes.Split(bytes.TrimSuffix(whole, []byte{'\n'}), []byte{'\n'}) {
		if len(whole) == 0 {
			break
		}
		v, err := parseLine(line)
		if err == nil && v.N != i+1 {
			err = fmt.Errorf("version %d stands where version %d was expected", v.N, i+1)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w; what was changed on the page cannot be known: put the file back from a backup, or move the folder away to begin anew from the configuration's files", b.log(), i+1, err)
		}
		b.versions = append(b.versions, v)
	}
	b.size = int64(len(whole))
	return b, nil
}

func (b *Book) log() string            { return filepath.Join(b.dir, "history.jsonl") }
func (b *Book) file(sum string) string { return filepath.Join(b.dir, "texts", sum) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func parseLine(line []byte) (v Version, err error) {
	sum, body, ok := bytes.Cut(line, []byte{' '})
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !ok || err != nil || uint32(want) != crc32.Checksum(body, castagnoli) {
		return v, errors.New("the line is damaged: its checksum is not that of its text")
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("the line is not of this format: %w", err)
	}
	return v, nil
}

// Sum names a text; the text of no file is "".
func Sum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Head returns the version in force; N is 0 when nothing was changed yet.
func (b *Book) Head() Version {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.head()
}

func (b *Book) head() Version {
	if len(b.versions) == 0 {
		return Version{}
	}
	return b.versions[len(b.versions)-1]
}

// Version returns a version; 0 is that of the configuration alone.
func (b *Book) Version(n int) (Version, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case n == 0:
		return Version{}, nil
	case n < 0 || n > len(b.versions):
		return Version{}, fmt.Errorf("%w: %d is not in 1..%d", ErrNoVersion, n, len(b.versions))
	}
	return b.versions[n-1], nil
}

// Versions returns versions, the newest first, at most limit: of one file, or of
// all when name is "".
func (b *Book) Versions(name string, limit int) []Version {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []Version{}
	for _, v := range slices.Backward(b.versions) {
		if len(out) == limit {
			break
		}
		if name == "" || slices.Contains(v.Changed, name) {
			out = append(out, v)
		}
	}
	return out
}

// Last returns the version that gave a file the text that it has in v.
func (b *Book) Last(v Version, name string) Version {
	for _, older := range b.Versions(name, MaxVersions) {
		if older.N <= v.N {
			return older
		}
	}
	return Version{}
}

// Text returns the text with a sum, "" for the sum "".
func (b *Book) Text(sum string) (string, error) {
	if sum == "" {
		return "", nil
	}
	text, err := os.ReadFile(b.file(sum))
	if err != nil {
		return "", fmt.Errorf("read a text of the rules: %w", err)
	}
	if Sum(string(text)) != sum {
		return "", fmt.Errorf("%s is damaged: its SHA-256 is not its name; put it back from a backup", b.file(sum))
	}
	return string(text), nil
}

// Commit adds the version v with the texts that it names by their sums; texts
// that are kept already may be left out. seen is the version that its author saw.
// Number and time are given by the book.
func (b *Book) Commit(seen int, v Version, texts ...string) (Version, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := b.head(); seen != now.N {
		before := Version{N: seen}
		if seen > 0 && seen <= len(b.versions) {
			before = b.versions[seen-1]
		}
		return Version{}, &Conflict{Seen: before, Now: now}
	}
	v.N, v.At, v.Files = len(b.versions)+1, v.At.UTC().Truncate(time.Millisecond), maps.Clone(v.Files)
	if len(v.Files) > MaxFiles {
		return Version{}, fmt.Errorf("%d files are changed at run time; at most %d: put changes that last into the configuration (haidang rules export)", len(v.Files), MaxFiles)
	}
	body, err := json.Marshal(v)
	if err != nil {
		return Version{}, fmt.Errorf("write a version of the rules: %w", err)
	}
	line := fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(body, castagnoli), body)
	if v.N > MaxVersions || b.size+int64(len(line)) > maxLog {
		return Version{}, fmt.Errorf("the history of the rules is full (%d versions): put the changes into the configuration (haidang rules export) and move the folder %s away", v.N-1, b.dir)
	}
	if err := b.keep(texts); err != nil {
		return Version{}, fmt.Errorf("keep a version of the rules: %w", err)
	}
	if err := b.append(line); err != nil {
		return Version{}, fmt.Errorf("keep a version of the rules: %w", err)
	}
	b.size += int64(len(line))
	b.versions = append(b.versions, v)
	return v, nil
}

// keep writes texts, each synced under its name before a version names it.
func (b *Book) keep(texts []string) error {
	folder := filepath.Join(b.dir, "texts")
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return err
	}
	for _, text := range texts {
		if len(text) > MaxText {
			return fmt.Errorf("a text has %d bytes, at most %d are allowed", len(text), MaxText)
		}
		sum := Sum(text)
		if has, err := b.Text(sum); err == nil && has == text {
			continue
		}
		if err := write(folder, b.file(sum), text); err != nil {
			return err
		}
	}
	return errors.Join(syncFolder(folder), syncFolder(b.dir), syncFolder(filepath.Dir(b.dir)))
}

// write puts a whole file at its name, or nothing.
func write(folder, name, text string) (err error) {
	file, err := os.CreateTemp(folder, ".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Chmod(0o640), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}

// append adds a line where the last whole one ends.
func (b *Book) append(line []byte) (err error) {
	file, err := os.OpenFile(b.log(), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Truncate(b.size); err != nil { // what a crash or a full disk has left
		return err
	}
	if _, err := file.WriteAt(line, b.size); err != nil {
		return err
	}
	return errors.Join(file.Sync(), syncFolder(b.dir))
}

func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
