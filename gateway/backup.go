package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A backup is a tar file. Its first entry says of what it is; the files follow
// with their paths in the data folder; the last entry is the SHA-256 of all that
// is before it, so that a backup that was cut short is known for one.
const (
	backupHead   = "haidang-backup.json"
	backupEnd    = "haidang-backup.sha256"
	backupFormat = 1
)

// A backupNote is the first entry.
type backupNote struct {
	Format     int       `json:"format"`      // of the backup
	DataFormat int       `json:"data_format"` // of the data folder
	Version    string    `json:"version"`     // of the program
	Gateway    string    `json:"gateway"`
	At         time.Time `json:"at"` // what was acknowledged before is in it
	Files      int       `json:"files"`
	Bytes      int64     `json:"bytes"`
	// Elsewhere names what is not in the backup because it is not here.
	Elsewhere []string `json:"elsewhere,omitempty"`
}

// A keptPart is a file of a backup.
type keptPart struct {
	name    string // in the data folder, with slashes
	content io.ReadCloser
	size    int64
}

// A snapshot is the files of a data folder as they are at one instant.
type snapshot struct {
	note  backupNote
	parts []keptPart
}

func (s *snapshot) Close() error {
	var errs []error
	for _, p := range s.parts {
		errs = append(errs, p.content.Close())
	}
	return errors.Join(errs...)
}

// take keeps the file, below a folder of the data folder.
func (s *snapshot) take(folder string) func(name string, content io.ReadCloser, size int64) {
	return func(name string, content io.ReadCloser, size int64) {
		s.parts = append(s.parts, keptPart{name: folder + name, content: content, size: size})
		s.note.Files++
		s.note.Bytes += size
	}
}

// A snapshooter is the log or the store.
type snapshooter interface {
	Snapshot(take func(name string, content io.ReadCloser, size int64)) error
}

// takeSnapshot opens the files of a data folder. The log comes first: its
// followers' positions are never ahead of what the store has then, and frames
// that are stored or evaluated again give the same points and the same keys.
func takeSnapshot(cfg *Configuration, log, store snapshooter) (_ *snapshot, err error) {
	s := &snapshot{note: backupNote{Format: backupFormat, DataFormat: dataFormat, Version: version, Gateway: cfg.Gateway, At: time.Now().UTC()}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if cfg.Spool.URL != "" {
		s.note.Elsewhere = append(s.note.Elsewhere, "the log (spool.url)")
	}
	if cfg.Influx.URL != "" {
		s.note.Elsewhere = append(s.note.Elsewhere, "InfluxDB (influx.url)")
	}
	if err := log.Snapshot(s.take("spool/")); err != nil {
		return nil, err
	}
	if err := s.others(cfg.Data); err != nil {
		return nil, fmt.Errorf("take a snapshot of the data folder: %w", err)
	}
	return s, store.Snapshot(s.take("influx/"))
}

// others reads what is neither the log's nor the store's: accounts, devices that
// were changed at run time, what was delivered. These files are small, and are
// replaced as a whole or grow at their end.
func (s *snapshot) others(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		name, err2 := filepath.Rel(dir, path)
		switch err = errors.Join(err, err2); {
		case errors.Is(err, fs.ErrNotExist) && name != ".":
			return nil // replaced meanwhile; its new name comes or came
		case err != nil:
			return err
		case entry.IsDir() && (name == "spool" || name == "influx" || strings.HasPrefix(name, ".")) && name != ".":
			return fs.SkipDir
		case !entry.Type().IsRegular() || entry.Name() == "lock" || name == "influx.files":
			return nil // the last lists the store's files, which are others in the backup
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		s.take("")(filepath.ToSlash(name), io.NopCloser(bytes.NewReader(text)), int64(len(text)))
		return err
	})
}

// write writes the backup.
func (s *snapshot) write(out io.Writer) error {
	sum := sha256.New()
	archive := tar.NewWriter(io.MultiWriter(out, sum))
	head, err := json.MarshalIndent(s.note, "", "  ")
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if err := addToBackup(archive, backupHead, bytes.NewReader(head), int64(len(head)), s.note.At); err != nil {
		return err
	}
	for _, p := range s.parts {
		if err := addToBackup(archive, p.name, p.content, p.size, s.note.At); err != nil {
			return err
		}
	}
	end := hex.EncodeToString(sum.Sum(nil)) + "\n"
	if err := addToBackup(archive, backupEnd, strings.NewReader(end), int64(len(end)), s.note.At); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

func addToBackup(archive *tar.Writer, name string, content io.Reader, size int64, at time.Time) error {
	err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: at.Truncate(time.Second)})
	if err == nil {
		_, err = io.CopyN(archive, content, size)
	}
	if err != nil {
		return fmt.Errorf("write %s to the backup: %w", name, err)
	}
	return nil
}

// backupPath is where the control socket answers with a backup.
const backupPath = "/backup"

// serveBackup answers at the control socket with a backup.
func (g *instance) serveBackup(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // gigabytes over a slow disk; a server that cannot has none
	s, err := takeSnapshot(&g.cfg, g.spool, g.store)
	if err != nil {
		g.logger.Error("a backup cannot be made", "error", err)
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(map[string]string{"detail": err.Error()}) // who asked may be gone
		return
	}
	defer s.Close()
	w.Header().Set("Content-Type", "application/x-tar")
	if err := s.write(w); err != nil && r.Context().Err() == nil {
		g.logger.Error("a backup was cut short", "error", err)
	}
}

// readBackup unpacks a backup into a folder that it makes, and returns its note.
// Nothing is left of one that is not whole.
func readBackup(ctx context.Context, in io.Reader, dir string) (note backupNote, err error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return note, fmt.Errorf("the folder %s is not empty: name one that is, or that is not there yet", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return note, fmt.Errorf("look at the folder to restore to: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o750); err != nil {
		return note, fmt.Errorf("make the folder to restore to: %w", err)
	}
	made, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), ".restore-")
	if err != nil {
		return note, fmt.Errorf("make the folder to restore to: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(made))
		}
	}()
	u := &unpacking{ctx: ctx, dir: made, sum: sha256.New()}
	if note, err = u.all(in); err != nil {
		return note, err
	}
	if err := os.Chmod(made, 0o750); err != nil {
		return note, fmt.Errorf("restore: %w", err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return note, fmt.Errorf("replace the empty folder %s: %w", dir, err)
	}
	if err := os.Rename(made, dir); err != nil {
		return note, fmt.Errorf("put the restored folder in its place: %w", err)
	}
	return note, nil
}

// An unpacking is the reading of a backup.
type unpacking struct {
	ctx context.Context
	dir string
	sum hash.Hash // of what was read
}

var errCutShort = errors.New("the backup is cut short or damaged: nothing was restored")

func (u *unpacking) all(in io.Reader) (note backupNote, err error) {
	// The sum is of whole entries: tar reads 512 bytes at a time and no more.
	archive := tar.NewReader(io.TeeReader(in, u.sum))
	for n := 0; ; n++ {
		before := hex.EncodeToString(u.sum.Sum(nil))
		head, err := archive.Next()
		if err != nil {
			return note, fmt.Errorf("%w: entry %d: %w", errCutShort, n, err)
		}
		switch {
		case n == 0:
			if err := readNote(archive, head, &note); err != nil {
				return note, err
			}
		case head.Name == backupEnd:
			text, err := io.ReadAll(io.LimitReader(archive, 1<<10))
			if err != nil || strings.TrimSpace(string(text)) != before {
				return note, errors.Join(errCutShort, err)
			}
			return note, nil
		default:
			if err := u.one(head, archive); err != nil {
				return note, err
			}
		}
	}
}

func readNote(in io.Reader, head *tar.Header, note *backupNote) error {
	if head.Name != backupHead {
		return fmt.Errorf("this is no backup of haidang: it begins with %q, expected %s", head.Name, backupHead)
	}
	if err := json.NewDecoder(in).Decode(note); err != nil {
		return fmt.Errorf("read %s: %w", backupHead, err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("%w: %w", errCutShort, err)
	}
	if note.Format > backupFormat || note.DataFormat > dataFormat {
		return fmt.Errorf("the backup has format %d and data of format %d, of a newer haidang (%s); this one knows %d and %d", note.Format, note.DataFormat, note.Version, backupFormat, dataFormat)
	}
	return nil
}

// one writes a file of the backup; it is on disk when it returns.
func (u *unpacking) one(head *tar.Header, in io.Reader) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	if head.Typeflag != tar.TypeReg || !filepath.IsLocal(filepath.FromSlash(head.Name)) {
		return fmt.Errorf("the backup has an entry %q that is no file below the data folder", head.Name)
	}
	path := filepath.Join(u.dir, filepath.FromSlash(head.Name))
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("restore %s: %w", head.Name, err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("restore %s: %w", head.Name, err)
	}
	_, err = io.Copy(file, in)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w", errCutShort, err)
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("restore %s: %w", head.Name, err)
	}
	return nil
}
