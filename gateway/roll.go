package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"haidang/gateway/spool"
)

// A roll remembers who follows the warnings log. A follower that is new begins
// at the log's end instead of being sent three years of warnings that are over;
// a recipient is owed an offer of those that last, also after a restart, until
// it has accepted it.
type roll struct {
	spool  *spool.Spool
	logger *slog.Logger

	mu    sync.Mutex
	names []string
	owed  map[string]bool
}

// The roll is kept among the checkpoints: a name a line, "+" before those that
// are owed an offer.
const (
	rollCheckpoint = "followers"
	owedMark       = "+"
)

// openRoll reads the roll and enters the names that are new.
func openRoll(ctx context.Context, s *spool.Spool, names []string, logger *slog.Logger) (*roll, error) {
	r := &roll{spool: s, logger: logger, names: names, owed: map[string]bool{}}
	text, err := s.LoadCheckpoint(ctx, rollCheckpoint)
	if err != nil {
		logger.Error("the list of followers cannot be read; all begin where their positions say", "error", err)
		return r, nil
	}
	known := map[string]bool{}
	for _, line := range strings.Fields(string(text)) {
		name, owed := strings.CutPrefix(line, owedMark)
		known[name] = true
		r.owed[name] = owed
	}
	last := s.Warnings().Last()
	for _, name := range names {
		if known[name] || last == 0 || s.Warnings().Position(name) > 0 {
			continue // it has a place in the log: whatever it has not accepted is to come
		}
		if err := s.Warnings().Commit(ctx, name, last); err != nil {
			return nil, fmt.Errorf("begin %s at the end of the warnings log: %w", name, err)
		}
		r.owed[name] = true
	}
	r.keep(ctx)
	return r, nil
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
	if err := r.spool.SaveCheckpoint(ctx, rollCheckpoint, []byte(b.String())); err != nil {
		r.logger.Error("the list of followers cannot be kept", "error", err)
	}
}
