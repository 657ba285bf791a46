package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"haidang/gateway/console"
	"haidang/gateway/registry"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// Bounds of what is remembered of the dead letters; the log has them all.
const (
	maxLetters      = 20_000 // that are listed
	maxLetterDevice = 10_000 // devices whose errors are counted
	maxReasons      = 16     // of a device
	maxSettled      = 100_000

	lettersFile   = "deadletters.json"
	lettersFormat = 1

	retryPatience = 30 * time.Second
)

// A letterbox is the dead letters for people: what they are, how many of each
// device, and what was done with them. The letters themselves stay in their log;
// deadletters.json in the data folder says which were retried or dropped.
type letterbox struct {
	g    *instance
	log  *spool.Log[telemetry.DeadLetter]
	path string

	acting sync.Mutex // one act at a time

	mu      sync.Mutex
	entries []letterEntry // the oldest first
	devices map[string]*deviceErrors
	settled map[string]settlement
	forgot  int64 // hour in which devices were forgotten last
}

// A letterEntry is where a letter is, and by what it is looked for.
type letterEntry struct {
	seq            uint64
	n              int // in its frame
	device, reason string
}

// What became of a letter. Of one that is being retried nobody knows whether it came
// through.
const (
	retried  = "retried"
	dropped  = "dropped"
	retrying = "retrying"
)

// A settlement is what became of a letter.
type settlement struct {
	Did string    `json:"did"` // retried, dropped or retrying
	By  string    `json:"by"`
	At  time.Time `json:"at"`
}

// A letterState is a dead letter as the API shows it.
type letterState struct {
	ID string `json:"id"`
	telemetry.DeadLetter
	Text    string      `json:"text,omitempty"` // the bytes, where they are text
	Settled *settlement `json:"settled,omitempty"`
	NoRetry string      `json:"no_retry,omitempty"` // why it cannot be retried
}

// deviceErrors counts by reason and hour.
type deviceErrors struct {
	reasons map[string]*[24]hourCount
	last    lastError
	of      string // id of the letter that is last
}

type hourCount struct {
	hour  int64 // since 1970
	count int
}

// A lastError is the newest that was set aside of a device.
type lastError struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	Detail string    `json:"detail"`
	Place  string    `json:"place,omitempty"`
}

// openLetters reads what was done with dead letters in earlier runs.
func openLetters(g *instance) (*letterbox, error) {
	l := &letterbox{
		g: g, log: g.spool.DeadLetters(), path: filepath.Join(g.cfg.Data, lettersFile),
		devices: map[string]*deviceErrors{}, settled: map[string]settlement{},
	}
	text, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was done with dead letters: %w", err)
	}
	var file struct {
		Format  int                   `json:"format"`
		Settled map[string]settlement `json:"settled"`
	}
	err = json.Unmarshal(text, &file)
	switch {
	case err == nil && file.Format > lettersFormat:
		return nil, fmt.Errorf("%s has format %d; this version reads up to %d: run the newer one", l.path, file.Format, lettersFormat)
	case err != nil || file.Format < 1:
		g.logger.Error("what was done with dead letters cannot be read: all are listed as if nothing had been done", "file", l.path, "error", err)
	case file.Settled != nil:
		l.settled = file.Settled
	}
	return l, nil
}

// Run follows the log of dead letters until ctx ends.
func (l *letterbox) Run(ctx context.Context) error {
	from := uint64(1)
	if last := l.log.Last(); last > maxLetters {
		from = last - maxLetters + 1
	}
	return l.log.Follow(ctx, spool.FollowOptions{From: from}, func(_ context.Context, b *spool.Batch[telemetry.DeadLetter]) error {
		for i := range b.Frames {
			letters, err := b.Frames[i].Records()
			if err != nil {
				return err
			}
			l.mu.Lock()
			for n := range letters {
				l.enter(b.Frames[i].Seq, n, &letters[n])
			}
			l.mu.Unlock()
		}
		return nil
	})
}

// enter notes a letter. The lock is held.
func (l *letterbox) enter(seq uint64, n int, letter *telemetry.DeadLetter) {
	if len(l.entries) >= maxLetters+maxLetters/4 {
		l.entries = append(l.entries[:0:0], l.entries[len(l.entries)-maxLetters:]...)
	}
	l.entries = append(l.entries, letterEntry{seq, n, letter.Device, letter.Reason})
	id := letterID(seq, n)
	if letter.Device == "" || l.isDone(id) {
		return
	}
	d := l.devices[letter.Device]
	if d == nil {
		if len(l.devices) >= maxLetterDevice && !l.forgetDevices(letter.At) {
			return
		}
		d = &deviceErrors{reasons: map[string]*[24]hourCount{}}
		l.devices[letter.Device] = d
	}
	d.last, d.of = lastErrorOf(letter), id
	hours := d.reasons[letter.Reason]
	if hours == nil {
		if len(d.reasons) >= maxReasons {
			return
		}
		hours = &[24]hourCount{}
		d.reasons[letter.Reason] = hours
	}
	hour := letter.At.Unix() / 3600
	if h := &hours[uint64(hour)%24]; h.hour == hour {
		h.count++
	} else if hour > h.hour {
		*h = hourCount{hour, 1}
	}
}

func lastErrorOf(letter *telemetry.DeadLetter) lastError {
	return lastError{letter.At, letter.Reason, letter.Detail, letter.Place}
}

// isDone reports whether a letter was dropped or taken in: it is no problem of its
// device any more. The lock is held.
func (l *letterbox) isDone(id string) bool {
	s, ok := l.settled[id]
	return ok && s.Did != retrying
}

// done takes a letter that is settled out of what is counted of its device.
func (l *letterbox) done(ctx context.Context, id string, letter *telemetry.DeadLetter) {
	before := l.uncount(id, letter)
	if before == "" {
		return
	}
	_, _, newest, err := l.read(ctx, before)
	if err != nil {
		return // it is gone by its age meanwhile: the one that is settled stays named
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.devices[letter.Device]; d != nil && d.of == id {
		d.last, d.of = lastErrorOf(&newest), before
	}
}

// uncount returns the newest letter of the device that is not settled where the one
// that is now was its newest; "" for none.
func (l *letterbox) uncount(id string, letter *telemetry.DeadLetter) (before string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.devices[letter.Device]
	if d == nil {
		return ""
	}
	if hours := d.reasons[letter.Reason]; hours != nil {
		hour := letter.At.Unix() / 3600
		if h := &hours[uint64(hour)%24]; h.hour == hour && h.count > 0 {
			h.count--
		}
	}
	if d.of != id {
		return ""
	}
	for i := len(l.entries) - 1; i >= 0; i-- {
		e := l.entries[i]
		if other := letterID(e.seq, e.n); e.device == letter.Device && !l.isDone(other) {
			return other
		}
	}
	return ""
}

// forgetDevices makes room, once an hour at most, by forgetting devices of which
// nothing was set aside for a day.
func (l *letterbox) forgetDevices(now time.Time) bool {
	hour := now.Unix() / 3600
	if hour <= l.forgot {
		return false
	}
	l.forgot = hour
	maps.DeleteFunc(l.devices, func(_ string, d *deviceErrors) bool {
		today, _ := d.today(now)
		return today == nil
	})
	return len(l.devices) < maxLetterDevice
}

// errorsOf counts what was set aside of a device in the last 24 hours, by
// reason, and returns the newest of it.
func (l *letterbox) errorsOf(device string, now time.Time) (map[string]int, *lastError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.devices[device].today(now)
}

// erring returns the devices of which something was set aside in the last 24
// hours.
func (l *letterbox) erring(now time.Time) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for id, d := range l.devices {
		if today, _ := d.today(now); today != nil {
			out = append(out, id)
		}
	}
	return out
}

func (d *deviceErrors) today(now time.Time) (map[string]int, *lastError) {
	if d == nil {
		return nil, nil
	}
	var out map[string]int
	for reason, hours := range d.reasons {
		for _, h := range hours {
			if h.count > 0 && h.hour > now.Unix()/3600-24 {
				if out == nil {
					out = map[string]int{}
				}
				out[reason] += h.count
			}
		}
	}
	if out == nil {
		return nil, nil
	}
	last := d.last
	return out, &last
}

func letterID(seq uint64, n int) string { return fmt.Sprintf("%d-%d", seq, n) }

// list returns the newest letters that are asked for.
func (l *letterbox) list(ctx context.Context, q console.LetterQuery) (any, error) {
	l.mu.Lock()
	var wanted []letterEntry
	for i := len(l.entries) - 1; i >= 0 && len(wanted) < q.Limit; i-- {
		e := l.entries[i]
		if q.Device != "" && e.device != q.Device || q.Reason != "" && e.reason != q.Reason {
			continue
		}
		if _, done := l.settled[letterID(e.seq, e.n)]; !done || q.All || l.settled[letterID(e.seq, e.n)].Did == retrying {
			wanted = append(wanted, e)
		}
	}
	l.mu.Unlock()
	out := []letterState{}
	var frame []telemetry.DeadLetter
	var of uint64
	for _, e := range wanted {
		if e.seq != of {
			var err error
			if frame, err = l.log.At(ctx, e.seq); errors.Is(err, spool.ErrNoFrame) {
				frame = nil // gone by its age meanwhile
			} else if err != nil {
				return nil, err
			}
			of = e.seq
		}
		if e.n < len(frame) {
			out = append(out, l.state(e.seq, e.n, frame[e.n]))
		}
	}
	return out, nil
}

func (l *letterbox) state(seq uint64, n int, letter telemetry.DeadLetter) letterState {
	s := letterState{ID: letterID(seq, n), DeadLetter: letter}
	if printable(letter.Bytes) {
		s.Text = string(letter.Bytes)
	}
	l.mu.Lock()
	if done, ok := l.settled[s.ID]; ok {
		s.Settled = &done
	}
	l.mu.Unlock()
	if _, err := l.wayBack(&letter); err != nil {
		s.NoRetry = err.Error()
	}
	return s
}

// printable reports whether the bytes are text that people can read.
func printable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	return !bytes.ContainsFunc(b, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\r' && r != '\t' })
}

// read returns one letter from the log.
func (l *letterbox) read(ctx context.Context, id string) (uint64, int, telemetry.DeadLetter, error) {
	first, second, _ := strings.Cut(id, "-")
	seq, err1 := strconv.ParseUint(first, 10, 64)
	n, err2 := strconv.Atoi(second)
	if err1 != nil || err2 != nil || n < 0 || id != letterID(seq, n) {
		return 0, 0, telemetry.DeadLetter{}, fmt.Errorf("%q: %w; an id is like 17-0", id, console.ErrUnknownLetter)
	}
	frame, err := l.log.At(ctx, seq)
	if errors.Is(err, spool.ErrNoFrame) || err == nil && n >= len(frame) {
		return 0, 0, telemetry.DeadLetter{}, fmt.Errorf("%q: %w", id, console.ErrUnknownLetter)
	}
	if err != nil {
		return 0, 0, telemetry.DeadLetter{}, err
	}
	return seq, n, frame[n], nil
}

// show returns one letter.
func (l *letterbox) show(ctx context.Context, id string) (any, error) {
	seq, n, letter, err := l.read(ctx, id)
	if err != nil {
		return nil, err
	}
	return l.state(seq, n, letter), nil
}

// act retries or drops a letter. That it is being retried is on disk before it
// is, so that a crash cannot make it come through twice unseen.
func (l *letterbox) act(ctx context.Context, act console.LetterAct) (any, error) {
	l.acting.Lock()
	defer l.acting.Unlock()
	seq, n, letter, err := l.read(ctx, act.ID)
	if err != nil {
		return nil, err
	}
	if done, ok := l.settlementOf(act.ID); ok {
		switch {
		case done.Did != retrying:
			return nil, fmt.Errorf("%s was %s by %s at %s: %w", act.ID, done.Did, done.By, done.At.In(vietnam).Format("15:04 02/01/2006"), console.ErrSettled)
		case act.Do == "retry" && !act.Again:
			return nil, fmt.Errorf("%s was being retried by %s at %s and may have come through: look, then retry with --again or drop it: %w", act.ID, done.By, done.At.In(vietnam).Format("15:04 02/01/2006"), console.ErrSettled)
		}
	}
	if act.Do == "drop" {
		if err := l.settle(act.ID, &settlement{dropped, act.By, act.At}); err != nil {
			return nil, err
		}
		l.done(ctx, act.ID, &letter)
		return l.state(seq, n, letter), nil
	}
	back, err := l.wayBack(&letter)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, &telemetry.Rejection{Records: []telemetry.RejectedRecord{{Reason: letter.Reason, Detail: letter.Detail}}})
	}
	if err := l.retry(ctx, act, back); err != nil {
		return nil, err
	}
	l.done(ctx, act.ID, &letter)
	return l.state(seq, n, letter), nil
}

func (l *letterbox) retry(ctx context.Context, act console.LetterAct, back func(context.Context) (unsure bool, err error)) error {
	if err := l.settle(act.ID, &settlement{retrying, act.By, act.At}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), retryPatience)
	defer cancel()
	unsure, err := back(ctx)
	if err == nil {
		return l.settle(act.ID, &settlement{retried, act.By, act.At})
	}
	if unsure {
		return fmt.Errorf("%w: nobody knows yet whether it came through: %w", console.ErrUnavailable, err)
	}
	return errors.Join(err, l.settle(act.ID, nil))
}

func (l *letterbox) settlementOf(id string) (settlement, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.settled[id]
	return s, ok
}

// settle writes down what became of a letter; nil: nothing did.
func (l *letterbox) settle(id string, s *settlement) error {
	l.mu.Lock()
	settled := maps.Clone(l.settled)
	if len(l.entries) > 0 {
		for other := range settled { // what is not listed any more
			if seq, _, _ := strings.Cut(other, "-"); len(settled) > maxSettled/2 && below(seq, l.entries[0].seq) {
				delete(settled, other)
			}
		}
	}
	l.mu.Unlock()
	delete(settled, id)
	if s != nil {
		if len(settled) >= maxSettled {
			return fmt.Errorf("%w: %d dead letters are settled already", console.ErrUnavailable, maxSettled)
		}
		settled[id] = *s
	}
	text, err := json.Marshal(map[string]any{"format": lettersFormat, "settled": settled})
	if err == nil {
		err = registry.WriteFile(l.path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("%w: write down what became of %s: %w", console.ErrUnavailable, id, err)
	}
	l.mu.Lock()
	l.settled = settled
	l.mu.Unlock()
	return nil
}

func below(seq string, first uint64) bool {
	n, err := strconv.ParseUint(seq, 10, 64)
	return err == nil && n < first
}
