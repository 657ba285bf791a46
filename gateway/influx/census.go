package influx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/influxdata/influxdb/tsdb/engine/tsm1"
)

// The engine does not miss a file that is gone. So the files that hold readings are
// listed beside its folder, in <dir>.files, whenever there are others: a line each
// with its name, the times of its first and last reading (Unix ns, 0 for a
// write-ahead log), and at the end the CRC-32 of the lines. A file that is listed
// and gone is lost, unless its shard has one that is not listed: then a compaction
// or a snapshot has taken its place just before the end.
const (
	censusSuffix = ".files"
	censusEvery  = 5 * time.Second
)

// A holder is a file that holds readings.
type holder struct {
	name        string // below the folder of the engine
	first, last int64
}

// shard is that part of its name that files of one shard have in common.
func (h holder) shard() string {
	_, rest, _ := strings.Cut(filepath.ToSlash(filepath.Dir(h.name)), "/")
	return rest
}

// A census is the list of them.
type census struct {
	dir  string
	kept []byte            // the text of the list on disk
	seen map[string]holder // by name
}

func (c *census) path() string { return c.dir + censusSuffix }

// holders lists the files that are there now.
func (c *census) holders() (out []holder, err error) {
	err = filepath.WalkDir(c.dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // replaced meanwhile, or a new store
		}
		if err != nil || entry.IsDir() {
			return err
		}
		extension := strings.TrimPrefix(filepath.Ext(path), ".")
		if extension != tsm1.TSMFileExtension && extension != tsm1.WALFileExtension {
			return nil
		}
		if info, err := entry.Info(); err != nil || info.Size() == 0 {
			return nil // it is gone, or holds nothing yet
		}
		name, err := filepath.Rel(c.dir, path)
		h, known := c.seen[name]
		if !known {
			h = holder{name: name}
			if extension == tsm1.TSMFileExtension {
				h.first, h.last, _ = timesOfFile(path) // one that cannot be read is told at the start
			}
		}
		out = append(out, h)
		return err
	})
	return out, err
}

// compare tells what is listed and gone. It must run before the engine opens its
// files.
func (c *census) compare(log *slog.Logger) error {
	now, err := c.holders()
	if err != nil {
		return fmt.Errorf("look at the files of InfluxDB: %w", err)
	}
	before, err := readCensus(c.path())
	if err != nil {
		log.Warn("the list of InfluxDB's files cannot be read: should one be missing, that is not told", "error", err)
	}
	there, fresh := map[string]bool{}, map[string]bool{}
	for _, h := range now {
		there[h.name] = true
		if !slices.ContainsFunc(before, func(b holder) bool { return b.name == h.name }) {
			fresh[h.shard()] = true
		}
	}
	for _, h := range before {
		if there[h.name] || fresh[h.shard()] || isAside(filepath.Join(c.dir, h.name)) {
			continue
		}
		facts := []any{"path", filepath.Join(c.dir, h.name)}
		if h.last != 0 {
			facts = append(facts, "readings_from", time.Unix(0, h.first).UTC(), "readings_to", time.Unix(0, h.last).UTC())
		}
		log.Error("a data file of InfluxDB is missing: stored readings are lost", facts...)
	}
	return c.keep(now)
}

// isAside reports whether a file was set aside as damaged, which was told.
func isAside(path string) bool {
	_, err := os.Stat(path + "." + tsm1.BadTSMFileExtension)
	return err == nil
}

func readCensus(path string) (out []holder, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(bytes.TrimSuffix(text, []byte{'\n'}), '\n') + 1
	if string(text[end:]) != censusSum(text[:end]) {
		return nil, fmt.Errorf("%s is damaged", path)
	}
	for line := range strings.Lines(string(text[:end])) {
		var h holder
		if _, err := fmt.Sscanf(line, "%q %d %d", &h.name, &h.first, &h.last); err != nil {
			return nil, fmt.Errorf("%s: %q is not like \"name\" 1 2", path, line)
		}
		out = append(out, h)
	}
	return out, nil
}

func censusSum(text []byte) string { return fmt.Sprintf("%08x\n", crc32.ChecksumIEEE(text)) }

// keep writes the list when it has changed.
func (c *census) keep(now []holder) error {
	c.seen = make(map[string]holder, len(now))
	var text []byte
	for _, h := range now {
		c.seen[h.name] = h
		text = fmt.Appendf(text, "%q %d %d\n", h.name, h.first, h.last)
	}
	text = append(text, censusSum(text)...)
	if bytes.Equal(text, c.kept) {
		return nil
	}
	temporary := c.path() + ".new"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err == nil {
		_, err = file.Write(text)
		err = errors.Join(err, file.Sync(), file.Close())
	}
	if err == nil {
		err = os.Rename(temporary, c.path())
	}
	if err != nil {
		return fmt.Errorf("list the files of InfluxDB: %w", err)
	}
	c.kept = text
	return nil
}

// count lists the files now and then until ctx ends, and once more.
func (c *census) count(ctx context.Context, log *slog.Logger) {
	ticker := time.NewTicker(censusEvery)
	defer ticker.Stop()
	failing := false
	for running := true; running; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			running = false
		}
		now, err := c.holders()
		if err == nil {
			err = c.keep(now)
		}
		if err != nil && !failing {
			log.Warn("the files of InfluxDB are not listed: should one be missing, that is not told", "error", err)
		}
		failing = err != nil
	}
}
