package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"haidang/gateway/spool"
)

// A roll remembers who follows the warnings log. A follower that is new begins
// at the log's end instead of being sent three years of warnings that are over;
// a recipient is owed an offer of those that last, also after a restart, until
// it has accepted it. One that was taken out of the configuration and comes back
// is new.
type roll struct {
	spool      *spool.Spool
	checkpoint string
	logger     *slog.Logger

	mu    sync.Mutex
	names []string
	owed  map[string]bool
	gone  []string // taken out, the last at the end
}

// The roll is kept among the checkpoints: a name a line, "+" before those that
// are owed an offer, "-" before those that are gone.
const (
	rollCheckpoint = "followers"
	postCheckpoint = "recipients" // of a share of the recipients
	owedMark       = "+"
	goneMark       = "-"
	maxGone        = 256
)

// openRoll reads the roll, enters the names that are new and strikes out those
// that are not among names any more.
func openRoll(ctx context.Context, s *spool.Spool, checkpoint string, names []string, logger *slog.Logger) (*roll, error) {
	r := &roll{spool: s, checkpoint: checkpoint, logger: logger, owed: map[string]bool{}}
	text, err := s.LoadCheckpoint(ctx, checkpoint)
	if err != nil {
		logger.Error("the list of followers cannot be read; all begin where their positions say", "error", err)
		r.names = names
		return r, nil
	}
	for _, line := range strings.Fields(string(text)) {
		if name, gone := strings.CutPrefix(line, goneMark); gone {
			r.gone = append(r.gone, name)
			continue
		}
		name, owed := strings.CutPrefix(line, owedMark)
		r.names = append(r.names, name)
		r.owed[name] = owed
	}
	return r, r.set(ctx, names)
}

// set makes names those that follow.
func (r *roll) set(ctx context.Context, names []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.spool.Warnings().Last()
	for _, name := range names {
		if slices.Contains(r.names, name) {
			continue
		}
		back := slices.Contains(r.gone, name)
		r.gone = slices.DeleteFunc(r.gone, func(n string) bool { return n == name })
		if last == 0 || !back && r.spool.Warnings().Position(name) > 0 {
			continue // it has a place in the log: whatever it has not accepted is to come
		}
		if err := r.spool.Warnings().Commit(ctx, name, last); err != nil {
			return fmt.Errorf("begin %s at the end of the warnings log: %w", name, err)
		}
		r.owed[name] = true
	}
	for _, name := range r.names {
		if slices.Contains(names, name) {
			continue
		}
		r.logger.Warn("a follower of the warnings is taken out: what it was not told of yet it is not told of any more", "follower", name, "frames_behind", r.spool.Warnings().Lag(name))
		r.gone = append(r.gone, name)
		delete(r.owed, name)
	}
	r.gone = r.gone[max(0, len(r.gone)-maxGone):]
	r.names = slices.Clone(names)
	r.keep(ctx)
	return nil
}

// owes reports whether a follower is owed an offer of the warnings that last.
func (r *roll) owes(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owed[name]
}

// offered notes that a follower has taken the offer.
func (r *roll) offered(ctx context.Context, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owed[name] = false
	r.keep(ctx)
}

// keep writes the roll. Without it the next start asks the log's positions, or
// makes an offer twice.
func (r *roll) keep(ctx context.Context) {
	var b strings.Builder
	for _, name := range r.names {
		if r.owed[name] {
			b.WriteString(owedMark)
		}
		b.WriteString(name + "\n")
	}
	for _, name := range r.gone {
		b.WriteString(goneMark + name + "\n")
	}
	if err := r.spool.SaveCheckpoint(ctx, r.checkpoint, []byte(b.String())); err != nil {
		r.logger.Error("the list of followers cannot be kept", "error", err)
	}
}
