// Package proof keeps which recipient was told of which warning, when, and what
// it answered.
//
// # Contract
//
// An Attempt is one line of JSON at the end of the newest file,
//
//	<dir>/000000000001.jsonl, 000000000002.jsonl, ...
//
// Files are at most MaxFile long and MaxFiles many, so 256 MiB in all: about a
// million attempts. The oldest file goes first. A line that a power cut has torn is
// passed over.
//
// Note does not wait for the disk: it puts the line into a queue of MaxQueue, which
// Run writes and syncs, at most Beat later. So a power cut loses the last Beat of
// attempts; the positions in the warnings log lose as much, and what was delivered
// meanwhile is delivered and noted again, with the same key. A queue that is full,
// and a disk that takes nothing, lose attempts: haidang_proof_lost_total counts
// them.
//
// Where several machines tell recipients, they share the attempts through a log, and
// each has all of them in files of its own, see OpenShared.
package proof

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
)

// Bounds.
const (
	MaxFile  = 16 << 20 // bytes of one file
	MaxFiles = 16
	MaxQueue = 8192 // attempts that wait for the disk
	MaxTold  = 1000 // attempts of one warning that are told: the newest
	Beat     = time.Second

	maxAnswer = 1 << 10  // bytes of an answer that are kept
	maxKnown  = 20 << 10 // pairs of warning and recipient whose newest accepted transition is known
)

type pair struct{ id, recipient string }

// A Log keeps attempts. It is safe for concurrent use.
type Log struct {
	dir    string
	logger *slog.Logger
	queue  chan telemetry.Attempt
	lost   prometheus.Counter
	noted  map[bool]prometheus.Counter

	mu       sync.Mutex
	accepted map[pair]int // the newest transition that a recipient has accepted
	order    []pair       // of accepted, the oldest first
	tries    map[pair]try // of what is not accepted yet

	shared  bool
	turn    chan struct{} // of Join
	closing sync.Once
	held    []telemetry.Attempt // those that the shared log has not taken yet; who has the turn has them

	disk    sync.Mutex // guards the files and what follows
	file    *os.File
	number  int
	size    int64
	failing bool
	frame   uint64 // of the shared log, that was taken last
}

type try struct{ n, attempts int }

// Open reads what is in dir, which it makes.
func Open(dir string, reg prometheus.Registerer, logger *slog.Logger) (*Log, error) {
	return openLog(dir, reg, logger, false)
}

func openLog(dir string, reg prometheus.Registerer, logger *slog.Logger, shared bool) (*Log, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of deliveries: %w", err)
	}
	l := &Log{dir: dir, shared: shared, turn: make(chan struct{}, 1), logger: logger, queue: make(chan telemetry.Attempt, MaxQueue), accepted: map[pair]int{}, tries: map[pair]try{}}
	with := promauto.With(reg)
	l.lost = with.NewCounter(prometheus.CounterOpts{Name: "haidang_proof_lost_total", Help: "Attempts to deliver that were made and are not on record: the disk did not take them in time."})
	noted := with.NewCounterVec(prometheus.CounterOpts{Name: "haidang_proof_attempts_total", Help: "Attempts to deliver that are on record."}, []string{"accepted"})
	l.noted = map[bool]prometheus.Counter{true: noted.WithLabelValues("true"), false: noted.WithLabelValues("false")}
	numbers, err := l.files()
	if err != nil {
		return nil, err
	}
	if len(numbers) > 0 {
		l.number = numbers[len(numbers)-1]
	}
	return l, l.each(context.Background(), l.newest(numbers), nil, func(one *line) {
		l.frame = max(l.frame, one.Frame)
		if one.Accepted {
			l.know(&one.Attempt)
		}
	})
}

// A line is one of a file.
type line struct {
	telemetry.Attempt
	Frame uint64 `json:"frame,omitempty"` // of the shared log, that it came with
}

// newest returns the files that what was accepted lately is read from: a start
// does not wait for all of them.
func (l *Log) newest(numbers []int) []int {
	var size int64
	for i := len(numbers); i > 0; i-- {
		if size >= MaxFile {
			return numbers[i:]
		}
		if at, err := os.Stat(l.name(numbers[i-1])); err == nil {
			size += at.Size()
		}
	}
	return numbers
}

// Note puts an attempt down. It does not block.
func (l *Log) Note(a telemetry.Attempt) {
	if len(a.Answer) > maxAnswer {
		a.Answer = strings.ToValidUTF8(a.Answer[:maxAnswer], "") + "..."
	}
	l.mu.Lock()
	p := pair{a.ID, a.Recipient}
	t := l.tries[p]
	if t.n != a.N {
		t = try{n: a.N}
	}
	t.attempts++
	a.Attempt = t.attempts
	l.tries[p] = t
	if a.Accepted {
		delete(l.tries, p)
		l.know(&a)
	} else if len(l.tries) > maxKnown {
		clear(l.tries) // their attempts are counted anew
	}
	l.mu.Unlock()
	select {
	case l.queue <- a:
	default:
		l.lost.Inc()
	}
}

func (l *Log) know(a *telemetry.Attempt) {
	p := pair{a.ID, a.Recipient}
	before, ok := l.accepted[p]
	if !ok {
		if len(l.order) == maxKnown {
			delete(l.accepted, l.order[0])
			l.order = l.order[1:]
		}
		l.order = append(l.order, p)
	}
	l.accepted[p] = max(before, a.N)
}

// Accepted returns the newest transition of a warning that a recipient has
// accepted, 0 for none.
func (l *Log) Accepted(id, recipient string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted[pair{id, recipient}]
}

// Run writes attempts until ctx ends, then those that wait. It is not for a Log that
// is shared, see Join.
func (l *Log) Run(ctx context.Context) {
	ticker := time.NewTicker(Beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush()
			return
		case <-ticker.C:
			l.flush()
		}
	}
}

// flush writes what waits, and returns when it is on disk. What is shared waits for
// the log that it is shared through.
func (l *Log) flush() {
	if l.shared {
		return
	}
	l.disk.Lock()
	defer l.disk.Unlock()
	for {
		batch := l.waiting()
		if len(batch) == 0 {
			return
		}
		l.keep(batch, 0)
	}
}

// keep writes attempts, or counts them as lost. The lock of the disk is held.
func (l *Log) keep(batch []telemetry.Attempt, frame uint64) {
	err := l.write(batch, frame)
	if err != nil {
		l.lost.Add(float64(len(batch)))
		if !l.failing {
			l.logger.Error("deliveries cannot be put on record", "error", err)
		}
		if l.file != nil {
			_ = l.file.Close() // it is opened again
			l.file = nil
		}
	} else {
		for i := range batch {
			l.noted[batch[i].Accepted].Inc()
		}
	}
	l.failing = err != nil
}

func (l *Log) waiting() []telemetry.Attempt {
	var batch []telemetry.Attempt
	for len(batch) < MaxQueue/4 {
		select {
		case a := <-l.queue:
			batch = append(batch, a)
		default:
			return batch
		}
	}
	return batch
}

func (l *Log) write(batch []telemetry.Attempt, frame uint64) error {
	var text []byte
	for i := range batch {
		one, err := json.Marshal(line{batch[i], frame})
		if err != nil {
			return fmt.Errorf("write the delivery of %s: %w", batch[i].ID, err)
		}
		text = append(append(text, one...), '\n')
	}
	if err := l.room(); err != nil {
		return err
	}
	n, err := l.file.Write(text)
	l.size += int64(n)
	return errors.Join(err, l.file.Sync())
}

// room opens a file that has room, and removes the oldest when there are too many.
func (l *Log) room() (err error) {
	if l.file != nil && l.size < MaxFile {
		return nil
	}
	if l.file != nil {
		if err := l.file.Close(); err != nil {
			return err
		}
		l.file = nil
	}
	// A file that another run wrote is never written again: it may end within a line.
	l.number++
	if l.file, err = os.OpenFile(l.name(l.number), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o640); err != nil {
		return err
	}
	l.size = 0
	numbers, err := l.files()
	if err != nil {
		return err
	}
	for l.tooMany(numbers) {
		if err := os.Remove(l.name(numbers[0])); err != nil {
			return err
		}
		numbers = numbers[1:]
	}
	folder, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// tooMany reports whether the files are over the bound. Those that restarts have
// left short count by their size, but there are at most 64 times as many.
func (l *Log) tooMany(numbers []int) bool {
	var total int64
	for _, n := range numbers {
		if at, err := os.Stat(l.name(n)); err == nil {
			total += at.Size()
		}
	}
	return total > (MaxFiles-1)*MaxFile || len(numbers) > 64*MaxFiles
}

func (l *Log) name(number int) string {
	return filepath.Join(l.dir, fmt.Sprintf("%012d.jsonl", number))
}

// files returns the numbers of the files, the oldest first.
func (l *Log) files() ([]int, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of deliveries: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".jsonl")
		if n, err := strconv.Atoi(base); ok && err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// Of returns the attempts of a warning, the oldest first; at most MaxTold, the
// newest.
func (l *Log) Of(ctx context.Context, id string) ([]telemetry.Attempt, error) {
	l.flush()
	out := []telemetry.Attempt{}
	mark, err := json.Marshal(id)
	if err != nil {
		return nil, fmt.Errorf("look for %q: %w", id, err)
	}
	numbers, err := l.files()
	if err != nil {
		return nil, err
	}
	err = l.each(ctx, numbers, mark, func(one *line) {
		if one.ID == id {
			out = append(out, one.Attempt)
		}
	})
	out = inOrder(out)
	return out[max(0, len(out)-MaxTold):], err
}

// Since returns the attempts since a time that were accepted, the oldest first.
func (l *Log) Since(ctx context.Context, since time.Time) ([]telemetry.Attempt, error) {
	l.flush()
	numbers, err := l.files()
	if err != nil {
		return nil, err
	}
	numbers = slices.DeleteFunc(numbers, func(n int) bool {
		at, err := os.Stat(l.name(n))
		return err == nil && at.ModTime().Before(since)
	})
	var out []telemetry.Attempt
	err = l.each(ctx, numbers, []byte(`"accepted":true`), func(one *line) {
		if !one.At.Before(since) {
			out = append(out, one.Attempt)
		}
	})
	return inOrder(out), err
}

// inOrder sorts attempts, the oldest first, without those that were shared twice
// because an answer was lost.
func inOrder(list []telemetry.Attempt) []telemetry.Attempt {
	slices.SortStableFunc(list, func(a, b telemetry.Attempt) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.N, b.N), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Recipient, b.Recipient), cmp.Compare(a.Attempt, b.Attempt))
	})
	return slices.Compact(list)
}

// each calls f with the attempts of files whose line has mark in it.
func (l *Log) each(ctx context.Context, numbers []int, mark []byte, f func(*line)) error {
	for _, n := range numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.read(n, mark, f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read deliveries: %w", err)
		}
	}
	return nil
}

func (l *Log) read(number int, mark []byte, f func(*line)) (err error) {
	file, err := os.Open(l.name(number))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		var one line
		if bytes.Contains(lines.Bytes(), mark) && json.Unmarshal(lines.Bytes(), &one) == nil {
			f(&one)
		}
	}
	return lines.Err()
}

// Close writes what waits and closes the file.
func (l *Log) Close() error {
	l.flush()
	l.closing.Do(func() { l.turn <- struct{}{} }) // no Join is under way, and none begins
	l.disk.Lock()
	defer l.disk.Unlock()
	if rest := append(l.held, l.waiting()...); len(rest) > 0 {
		l.held = nil
		l.keep(rest, 0) // others do not know of them
	}
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
