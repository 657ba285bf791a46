package spool

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/highwayhash"
	"golang.org/x/sync/errgroup"
)

// JetStream reads the blocks of its streams after a kill or a power cut and cuts
// a block off at the first record whose checksum is wrong, without a word: what
// lay behind it was acknowledged, and its numbers are given again. After a clean
// stop it finds such a record only when it is asked for. So the blocks are read
// before the server opens them, and mended:
//
//   - a record in which one bit is wrong is put right;
//   - other records that cannot be read are taken out, and nothing else is: a
//     filler stands in their place, so that no number is given twice;
//   - what a block has lost at its end, or a log with a missing block, gets a
//     filler up to the number that ends.go has noted;
//   - a description of a stream (meta.inf) that is damaged goes: the stream is
//     made again around its blocks.
//
// The files are kept as they were in the folder aside; see keepAside.
const (
	streamsFolder = "jetstream/$G/streams"
	blockFolder   = "msgs"
	blockSuffix   = ".blk"
	indexFile     = "index.db"
	metaFile      = "meta.inf"
	metaSumFile   = "meta.sum"

	// restoreTime bounds the search for wrong bits at a start, restoreMost the bytes
	// in which one is looked for: it takes the square of them.
	restoreTime = 2 * time.Second
	restoreMost = 32 << 10
	// scanners read blocks at the same time.
	scanners = 2
)

// A damage is what was found in one place.
type damage struct {
	stream string
	what   string // the block or file
	aside  string // where it is now as it was; "": nowhere

	first, last   uint64 // frames of a log that are lost; 0: none
	after, before int64  // they were received between these; 0: not known
	bytes         int    // that were taken out
	restored      int    // records of which a bit was put right
}

// A block is a file of records.
type block struct {
	path   string
	number int
	size   int
	pieces []piece
	tail   *record // a filler for its end
	remove bool    // it is empty and others follow it
}

// A piece is a row of records whose sequences follow each other, or damage.
type piece struct {
	from, to int
	bad      bool
	restored []byte // in place of the bytes, once the damage is put right
	drop     bool
	fill     *record // a filler to stand before it

	first, last     uint64
	firstAt, lastAt int64
	buried          bool // of what is gone
}

// A mender mends the files of one folder, before the server opens them.
type mender struct {
	dir      string
	closed   bool // the log was closed the last time: nothing is torn
	drops    bool // JetStream drops the oldest readings by itself
	deadline time.Time
	found    []damage
}

// all mends every stream that is there, and the logs that should be.
func (m *mender) all(notes map[string]end) error {
	folder := filepath.Join(m.dir, streamsFolder)
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at the logs: %w", err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") { // JetStream removes those
			names[e.Name()] = true
		}
	}
	for log, note := range notes {
		if note.last > 0 {
			names[streamOf(log)] = true
		}
	}
	for _, name := range sorted(names) {
		log, isLog := logOf(name)
		if err := m.stream(name, isLog, notes[log]); err != nil {
			return fmt.Errorf("mend %s: %w", name, err)
		}
	}
	return nil
}

func sorted(set map[string]bool) []string {
	var out []string
	for name := range set {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// stream mends one stream.
func (m *mender) stream(name string, isLog bool, note end) error {
	folder := filepath.Join(m.dir, streamsFolder, name)
	if err := m.meta(name); err != nil {
		return err
	}
	blocks, err := scan(name, filepath.Join(folder, blockFolder))
	if err != nil {
		return err
	}
	found := len(m.found)
	for _, b := range blocks {
		if err := m.restore(name, b); err != nil {
			return err
		}
	}
	p := plan{stream: name, note: note, closed: m.closed, ours: !m.empties(name, blocks)}
	if isLog {
		blocks = p.log(blocks, filepath.Join(folder, blockFolder))
	} else {
		p.other(blocks)
	}
	m.found = append(m.found, p.found...)
	for i, b := range blocks {
		// With its index JetStream would take an empty block for one that is full.
		b.remove = b.size == 0 && i < len(blocks)-1
		if !b.changed() {
			continue
		}
		aside, err := m.write(name, b)
		if err != nil {
			return err
		}
		for i := range m.found[found:] {
			if d := &m.found[found+i]; d.what == filepath.Base(b.path) {
				d.aside = aside
			}
		}
	}
	return nil
}

// empties reports whether JetStream may have dropped the oldest frames of a stream
// since that was last noted: it does so with a log that is at its bound.
func (m *mender) empties(stream string, blocks []*block) bool {
	bound, size := 0, 0
	switch stream {
	case streamReadings:
		return m.drops
	case streamWarnings:
		bound = warningsMaxBytes
	case streamLetters:
		bound = lettersMaxBytes
	}
	for _, b := range blocks {
		size += b.size
	}
	return bound > 0 && size+maxRecord >= bound
}

// scan reads the blocks of a folder, in order.
func scan(stream, folder string) ([]*block, error) {
	paths, _ := filepath.Glob(filepath.Join(folder, "*"+blockSuffix)) // the pattern is good
	var blocks []*block
	for _, path := range paths {
		number, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), blockSuffix))
		if err == nil {
			blocks = append(blocks, &block{path: path, number: number})
		}
	}
	slices.SortFunc(blocks, func(a, b *block) int { return cmp.Compare(a.number, b.number) })
	next := make(chan *block)
	var group errgroup.Group
	for range scanners {
		group.Go(func() (err error) {
			var buf []byte // one for all: a log may have thousands of blocks
			for b := range next {
				err = cmp.Or(err, b.scan(stream, &buf))
			}
			return err
		})
	}
	for _, b := range blocks {
		next <- b
	}
	close(next)
	return blocks, group.Wait()
}

// scan finds out what the block holds.
func (b *block) scan(stream string, buf *[]byte) (err error) {
	if *buf, err = readFile(b.path, *buf); err != nil {
		return err
	}
	b.size = len(*buf)
	newSealer(stream, b.number).walk(*buf, b.add, func(from, to int) {
		b.pieces = append(b.pieces, piece{from: from, to: to, bad: true})
	})
	return nil
}

// readFile reads a file into buf, which it makes longer when it must.
func readFile(path string, buf []byte) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return buf, err
	}
	defer file.Close()
	at, err := file.Stat()
	if err != nil {
		return buf, err
	}
	buf = slices.Grow(buf[:0], int(at.Size()))[:at.Size()]
	return buf[:readAround(file, buf)], nil
}

const sector = 4096

// readAround fills buf and returns how many bytes there are. What the disk does not
// give is zeros: damage like other damage.
func readAround(file io.ReaderAt, buf []byte) int {
	n, err := file.ReadAt(buf, 0)
	if err == nil || errors.Is(err, io.EOF) {
		return n
	}
	for at := 0; at < len(buf); at += sector {
		part := buf[at:min(at+sector, len(buf))]
		if _, err := file.ReadAt(part, int64(at)); err != nil {
			clear(part)
		}
	}
	return len(buf)
}

func (b *block) add(r record) {
	if n := len(b.pieces); n > 0 {
		last := &b.pieces[n-1]
		if !last.bad && r.buried && r.seq <= last.last {
			last.to = r.to
			return // what it buries is not the newest
		}
		if !last.bad && last.buried == (r.buried || r.gone) && r.seq == last.last+1 {
			last.to, last.last, last.lastAt = r.to, r.seq, r.time
			return
		}
	}
	b.pieces = append(b.pieces, piece{
		from: r.from, to: r.to, first: r.seq, last: r.seq, firstAt: r.time, lastAt: r.time, buried: r.buried || r.gone,
	})
}

func (b *block) changed() bool {
	return b.tail != nil || b.remove || slices.ContainsFunc(b.pieces, func(p piece) bool { return p.drop || p.fill != nil || p.restored != nil })
}

// restore puts right what it can of a block.
func (m *mender) restore(stream string, b *block) error {
	if !slices.ContainsFunc(b.pieces, func(p piece) bool { return p.bad }) {
		return nil
	}
	all, err := readFile(b.path, nil)
	if err != nil {
		return err
	}
	s := newSealer(stream, b.number)
	for i := range b.pieces {
		p := &b.pieces[i]
		if !p.bad || p.to-p.from > restoreMost {
			continue
		}
		right := s.restore(all[p.from:p.to], m.deadline)
		if right == nil {
			continue
		}
		r, _ := s.read(right, 0)
		*p = piece{from: p.from, to: p.to, restored: right, first: r.seq, last: r.seq, firstAt: r.time, lastAt: r.time, buried: r.buried || r.gone}
		m.found = append(m.found, damage{stream: stream, what: filepath.Base(b.path), restored: 1})
	}
	return nil
}

// write sets the block aside and puts one in its place as it is planned.
func (m *mender) write(stream string, b *block) (aside string, err error) {
	was, err := readFile(b.path, nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	s := newSealer(stream, b.number)
	var is []byte
	for _, p := range b.pieces {
		if p.fill != nil {
			is = append(is, s.filler(p.fill.seq, p.fill.time)...)
		}
		switch {
		case p.drop:
		case p.restored != nil:
			is = append(is, p.restored...)
		default:
			is = append(is, was[p.from:p.to]...)
		}
	}
	if b.tail != nil {
		is = append(is, s.filler(b.tail.seq, b.tail.time)...)
	}
	aside, err = keepAside(m.dir, b.path, stream)
	if err != nil {
		return "", err
	}
	folder := filepath.Dir(b.path)
	if err := os.Remove(filepath.Join(folder, indexFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return aside, err
	}
	if len(is) == 0 {
		return aside, errors.Join(os.Remove(b.path), syncFolder(folder))
	}
	return aside, replace(b.path, is)
}

// replace puts a file in the place of another, whole or not at all.
func replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	temporary := path + ".new" // not a name that JetStream reads
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// meta takes the description of a stream away when its checksum is wrong or one
// of its two files is missing.
func (m *mender) meta(stream string) error {
	folder := filepath.Join(m.dir, streamsFolder, stream)
	text, err1 := os.ReadFile(filepath.Join(folder, metaFile))
	sum, err2 := os.ReadFile(filepath.Join(folder, metaSumFile))
	if errors.Is(err1, fs.ErrNotExist) && errors.Is(err2, fs.ErrNotExist) {
		return nil
	}
	key := sha256.Sum256([]byte(stream))
	hash, _ := highwayhash.New64(key[:]) // the key has the right length
	_, _ = hash.Write(text)              // a hash takes everything
	if err1 == nil && err2 == nil && hex.EncodeToString(hash.Sum(nil)) == string(sum) {
		return nil
	}
	d := damage{stream: stream, what: metaFile}
	for _, name := range []string{metaFile, metaSumFile} {
		path := filepath.Join(folder, name)
		aside, err := keepAside(m.dir, path, stream)
		if err != nil {
			return err
		}
		if aside != "" {
			d.aside = aside
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	m.found = append(m.found, d)
	return syncFolder(folder)
}
