package modbus

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	wholeAgain    = 10 * time.Minute // from a block that was refused to the next try of all of it; doubled each time
	maxWholeAgain = 6 * time.Hour
	refusalPause  = 10 * time.Minute // between two warnings of the same value
	maxNamed      = 20               // values in one line of the log
)

// A refusal is what was told of a value that the unit answers with exceptions.
type refusal struct {
	told time.Time // when it was told last
	open bool      // it was not told since that the value is answered again
}

// News is what one poll has shown of refused values that was not known.
type news struct {
	refused  []string
	answered []string
	cause    error // the exception to the first
}

// widen puts the blocks back together that were split, when it is time to try:
// some instruments refuse while they start, and a split costs a request for
// each value.
func (u *unit) widen(now time.Time) {
	if u.split && !now.Before(u.widenAt) {
		u.blocks, u.split = slices.Clone(u.whole), false
	}
}

// halve splits a block in two from now on.
func (u *unit) halve(i int, now time.Time) {
	left, right := u.blocks[i].halves()
	u.blocks = slices.Replace(u.blocks, i, i+1, left, right)
	if !u.split {
		u.split = true
		u.pause = min(max(wholeAgain, 2*u.pause), maxWholeAgain)
		u.widenAt = now.Add(u.pause)
	}
}

// refuse notes an exception to a block. A value that comes and goes is told at
// a measured pace.
func (u *unit) refuse(b *block, cause error, now time.Time, n *news) {
	for i := range b.fields {
		name := b.fields[i].register.Value
		r := u.refused[name]
		if r.open || !r.told.IsZero() && now.Sub(r.told) < refusalPause {
			continue
		}
		u.refused[name] = refusal{told: now, open: true}
		if n.refused = append(n.refused, name); n.cause == nil {
			n.cause = cause
		}
	}
}

// answer notes that the unit has answered a block.
func (u *unit) answer(b *block, n *news) {
	if len(u.refused) == 0 {
		return
	}
	for i := range b.fields {
		name := b.fields[i].register.Value
		if r := u.refused[name]; r.open {
			r.open = false
			u.refused[name] = r
			n.answered = append(n.answered, name)
		}
	}
}

// report logs what is new, in one line for all values.
func (b *bus) report(u *unit, n *news) {
	if len(n.refused) > 0 {
		b.logger.Warn("unit refuses registers", "unit", u.config.ID, "device", u.config.Device, "values", named(n.refused), "error", n.cause)
	}
	if len(n.answered) > 0 {
		b.logger.Info("unit answers registers again that it refused", "unit", u.config.ID, "device", u.config.Device, "values", named(n.answered))
	}
}

func named(values []string) string {
	if more := len(values) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(values[:maxNamed], ", "), more)
	}
	return strings.Join(values, ", ")
}
