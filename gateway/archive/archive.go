package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sys/unix"
)

// Reasons why a file was removed.
const (
	droppedAge  = "age"
	droppedRoom = "room"
)

// Options of an archive. Name and At are needed.
type Options[T any] struct {
	Name   string                // in metrics and messages
	At     func(*T) time.Time    // when a record happened
	Config Config                // zero: the defaults
	Reg    prometheus.Registerer // nil: not registered
	Logger *slog.Logger          // nil: slog.Default
}

// An Archive is a folder of records. It is safe for concurrent use.
type Archive[T any] struct {
	dir    string
	o      Options[T]
	logger *slog.Logger
	mu     sync.Mutex            // one writes at a time; other processes are held off by the lock file
	fault  atomic.Pointer[error] // of the last write; nil: it was well

	written prometheus.Counter
	failed  prometheus.Counter
	dropped map[string]prometheus.Counter
}

// Open makes the folder where there is none.
func Open[T any](dir string, o Options[T]) (*Archive[T], error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of the archive: %w", err)
	}
	o.Config = o.Config.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	a := &Archive[T]{dir: dir, o: o, logger: o.Logger.With("archive", o.Name)}
	reg := o.Reg
	if reg != nil {
		reg = prometheus.WrapRegistererWith(prometheus.Labels{"archive": o.Name}, reg)
	}
	with := promauto.With(reg)
	a.written = with.NewCounter(prometheus.CounterOpts{Name: "haidang_archive_written_total", Help: "Records that were put into the archive."})
	a.failed = with.NewCounter(prometheus.CounterOpts{Name: "haidang_archive_failed_total", Help: "Times that the disk did not take records of the archive."})
	dropped := with.NewCounterVec(prometheus.CounterOpts{Name: "haidang_archive_dropped_total", Help: "Files of the archive that were removed: by their age, or for want of room."}, []string{"reason"})
	a.dropped = map[string]prometheus.Counter{droppedAge: dropped.WithLabelValues(droppedAge), droppedRoom: dropped.WithLabelValues(droppedRoom)}
	with.NewGaugeFunc(prometheus.GaugeOpts{Name: "haidang_archive_bytes", Help: "What the archive occupies on disk."}, func() float64 { return float64(a.bytes()) })
	return a, nil
}

// Append adds records, in order, and returns when they are on disk.
func (a *Archive[T]) Append(records []T) error {
	if len(records) == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.noted(a.locked(func() error { return a.append(records) })); err != nil {
		return err
	}
	a.written.Add(float64(len(records)))
	return nil
}

// noted counts and remembers an error of the disk.
func (a *Archive[T]) noted(err error) error {
	if err != nil {
		a.failed.Inc()
		a.fault.Store(&err)
	} else {
		a.fault.Store(nil)
	}
	return err
}

// Health returns why the last write failed, nil when it did not. It does not ask
// the disk.
func (a *Archive[T]) Health() error {
	if err := a.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// locked calls f while no other process writes.
func (a *Archive[T]) locked(f func() error) (err error) {
	lock, err := os.OpenFile(filepath.Join(a.dir, lockName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("lock the archive: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("lock the archive: %w", err)
		}
		return f()
	}
}

func (a *Archive[T]) append(records []T) error {
	var lines []byte
	month := ""
	write := func() error {
		if len(lines) == 0 {
			return nil
		}
		f, err := a.file(month)
		if err == nil {
			err = appendTo(filepath.Join(a.dir, f.name()), lines)
		}
		lines = lines[:0]
		return errors.Join(err, syncFolder(a.dir))
	}
	for i := range records {
		line, err := json.Marshal(&records[i])
		if err != nil {
			return fmt.Errorf("write record %d for the archive: %w", i, err)
		}
		if of := monthOf(a.o.At(&records[i])); of > month || len(lines) > MaxFile {
			if err := write(); err != nil {
				return err
			}
			month = max(month, of)
		}
		lines = append(append(lines, line...), '\n')
	}
	return write()
}

// file returns the file that records of a month go to.
func (a *Archive[T]) file(month string) (file, error) {
	list, err := files(a.dir)
	if err != nil {
		return file{}, err
	}
	if len(list) == 0 || list[len(list)-1].month < month {
		return file{month: month, number: 1}, nil
	}
	last := list[len(list)-1]
	at, err := os.Stat(filepath.Join(a.dir, last.name()))
	if err != nil {
		return file{}, fmt.Errorf("write the archive: %w", err)
	}
	if last.closed || at.Size() >= MaxFile {
		return file{month: last.month, number: last.number + 1}, nil
	}
	return last, nil
}

// Sweep closes the files whose time is over and removes what is beyond the
// bounds.
func (a *Archive[T]) Sweep(now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.noted(a.locked(func() error { return a.sweep(now) }))
}

func (a *Archive[T]) sweep(now time.Time) error {
	list, err := files(a.dir)
	if err != nil {
		return err
	}
	for i, f := range list {
		if newest := i == len(list)-1 && f.month >= monthOf(now); newest || f.closed {
			if err := a.settle(f); err != nil {
				return err
			}
			continue
		}
		if err := shut(a.dir, f); err != nil {
			return err
		}
	}
	return a.prune(now)
}

// settle finishes what a program that ended while it closed a file has left: the
// plain form beside the closed one, and no checksum yet.
func (a *Archive[T]) settle(f file) error {
	if !f.closed {
		return nil
	}
	twin := f
	twin.closed = false
	path := filepath.Join(a.dir, twin.name())
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	packed, err := os.ReadFile(filepath.Join(a.dir, f.name()))
	if err == nil {
		sum := sha256.Sum256(packed)
		err = note(a.dir, func(sums map[string]string) { sums[f.name()] = hex.EncodeToString(sum[:]) })
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("close %s of the archive: %w", f.name(), err)
	}
	return nil
}

// prune removes the oldest closed files.
func (a *Archive[T]) prune(now time.Time) error {
	list, err := files(a.dir)
	if err != nil {
		return err
	}
	oldest := monthOf(now.Add(-a.o.Config.Keep.Std()))
	for size := a.bytes(); len(list) > 1 && list[0].closed; list = list[1:] {
		reason := ""
		switch {
		case list[0].month < oldest:
			reason = droppedAge
		case size > int64(a.o.Config.MaxBytes):
			reason = droppedRoom
		default:
			return nil
		}
		path := filepath.Join(a.dir, list[0].name())
		if at, err := os.Stat(path); err == nil {
			size -= at.Size()
		}
		err := os.Remove(path)
		if err == nil {
			err = note(a.dir, func(sums map[string]string) { delete(sums, list[0].name()) })
		}
		if err != nil {
			return fmt.Errorf("remove %s of the archive: %w", list[0].name(), err)
		}
		a.dropped[reason].Inc()
		if reason == droppedRoom {
			a.logger.Warn("the archive is over its bound: its oldest file is removed before its time", "file", path, "max_bytes", a.o.Config.MaxBytes.String())
		}
	}
	return nil
}

// bytes is what the archive occupies.
func (a *Archive[T]) bytes() int64 {
	list, err := files(a.dir)
	if err != nil {
		return 0
	}
	var size int64
	for _, f := range list {
		if at, err := os.Stat(filepath.Join(a.dir, f.name())); err == nil {
			size += at.Size()
		}
	}
	return size
}

// Each calls each with the records from a time up to, and without, another, in the
// order in which they were written; mark, where it is not empty, is something that
// the line of a record has in it. An error of each ends it. A file that cannot be
// read to its end is told by the error, after the others were read.
func (a *Archive[T]) Each(ctx context.Context, from, to time.Time, mark []byte, each func(T) error) error {
	list, err := files(a.dir)
	if err != nil {
		return err
	}
	var damage []error
	for _, f := range list {
		if f.month < monthOf(from) || f.month > monthOf(to) {
			continue
		}
		stop, err := a.read(ctx, f, mark, func(record T) error {
			if at := a.o.At(&record); at.Before(from) || !at.Before(to) {
				return nil
			}
			return each(record)
		})
		if stop {
			return err
		}
		if err != nil {
			damage = append(damage, fmt.Errorf("read %s: %w", filepath.Join(a.dir, f.name()), err))
		}
	}
	return errors.Join(damage...)
}

// maxLine bounds a line that is read: no record is longer.
const maxLine = 1 << 20

// read calls each with the records of a file; stop says that it is the error of
// each, or of ctx.
func (a *Archive[T]) read(ctx context.Context, f file, mark []byte, each func(T) error) (stop bool, err error) {
	in, err := open(a.dir, f)
	if errors.Is(err, os.ErrNotExist) && !f.closed {
		f.closed = true // closed meanwhile
		in, err = open(a.dir, f)
	}
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // removed meanwhile
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = in.Close() }() // it was only read
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for n := 0; lines.Scan(); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return true, ctx.Err()
		}
		var record T
		if line := lines.Bytes(); !bytes.Contains(line, mark) || json.Unmarshal(line, &record) != nil {
			continue // torn by a crash, or of others
		}
		if err := each(record); err != nil {
			return true, err
		}
	}
	return false, lines.Err()
}

// Since returns when the oldest record happened, and false when there is none.
func (a *Archive[T]) Since() (at time.Time, ok bool) {
	list, err := files(a.dir)
	if err != nil {
		return at, false
	}
	found := errors.New("found")
	for _, f := range list {
		if _, err := a.read(context.Background(), f, nil, func(record T) error {
			at, ok = a.o.At(&record), true
			return found
		}); err != nil && ok {
			return at, true
		}
	}
	return at, ok
}

// Verify compares the closed files of a folder with their checksums: how many are
// well, and an error that names those that differ, that are missing and that
// nobody has noted. A folder that is not there has none.
func Verify(ctx context.Context, dir string) (well int, err error) {
	known, err := sums(dir)
	if err != nil {
		return 0, fmt.Errorf("read the checksums of the archive: %w", err)
	}
	list, err := files(dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var faults []error
	for _, f := range list {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if !f.closed {
			continue
		}
		if err := compare(filepath.Join(dir, f.name()), known[f.name()]); err != nil {
			faults = append(faults, err)
		} else {
			well++
		}
		delete(known, f.name())
	}
	for name := range known {
		faults = append(faults, fmt.Errorf("%s is missing", filepath.Join(dir, name)))
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return well, errors.Join(faults...)
}

func compare(path, want string) error {
	if want == "" {
		return fmt.Errorf("%s has no checksum in %s", path, sumsName)
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, in)
	if err = errors.Join(err, in.Close()); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != want {
		return fmt.Errorf("%s is not what it was when it was closed", path)
	}
	return nil
}
