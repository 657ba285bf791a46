package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/archive"
	"haidang/gateway/console"
	"haidang/gateway/telemetry"
)

// An auditEntry is one change that somebody made, or that the gateway made for
// somebody.
type auditEntry struct {
	At  time.Time `json:"at"`
	By  string    `json:"by"` // account, user of the machine, or haidang
	Do  string    `json:"do"` // warning.ack, drill.start, reload, account.add, ...
	On  string    `json:"on,omitempty"`
	Why string    `json:"why,omitempty"`
	// Changes say what, a sentence each.
	Changes []string `json:"changes,omitempty"`
	// Key is the same where the same change is written twice, as after a crash.
	Key string `json:"key,omitempty"`
}

// Bounds of an entry and of an answer.
const (
	maxAuditChanges  = 100
	maxAuditAnswer   = 10_000
	usualAuditAnswer = 200
)

// An audit is who changed what, when and why. It is append-only.
type audit struct {
	archive *archive.Archive[auditEntry]
}

// note puts a change on record, and returns when it is on disk. nil takes nothing:
// a replay has no audit.
func (a *audit) note(e auditEntry) error {
	if a == nil {
		return nil
	}
	if e.At.IsZero() {
		e.At = time.Now().UTC()
	}
	if e.By == "" {
		e.By = telemetry.Gateway
	}
	if more := len(e.Changes) - maxAuditChanges; more > 0 {
		e.Changes = append(slices.Clone(e.Changes[:maxAuditChanges]), fmt.Sprintf("and %d more", more))
	}
	if err := a.archive.Append([]auditEntry{e}); err != nil {
		return fmt.Errorf("put %s on record: %w", e.Do, err)
	}
	return nil
}

// record puts on record what has been done already; that the disk does not take it
// is told.
func (g *instance) record(e auditEntry) {
	if err := g.audit.note(e); err != nil {
		g.logger.Error("a change is not on record in the audit", "do", e.Do, "on", e.On, "by", e.By, "error", err)
	}
}

// first puts on record what is about to be done: what cannot be put on record is
// not done.
func (g *instance) first(e auditEntry) error {
	if err := g.audit.note(e); err != nil {
		return fmt.Errorf("%w: %w", console.ErrUnavailable, err)
	}
	return nil
}

// auditOf is what a transition says of a person, or of the gateway where it keeps
// a person's order; false when the rules alone brought it about.
func auditOf(t *telemetry.Transition) (auditEntry, bool) {
	switch {
	case t.Order != nil:
		return auditOfOrder(t.Order), true
	case t.Act == nil:
		return auditEntry{}, false
	}
	a := t.Act
	e := auditEntry{At: t.At, By: a.By, Do: "warning." + string(a.Do), On: t.ID, Why: a.Text, Key: t.Key()}
	if a.To != "" {
		e.Changes = append(e.Changes, "in charge: "+a.To)
	}
	if a.Until != nil {
		e.Changes = append(e.Changes, "until "+clockTime(*a.Until))
	}
	if len(t.Only) > 0 {
		e.Changes = append(e.Changes, "told: "+strings.Join(t.Only, ", "))
	}
	return e, true
}

func auditOfOrder(o *telemetry.Order) auditEntry {
	e := auditEntry{At: o.At, By: o.By, Do: "service.in", On: strings.Trim(o.Device+" "+o.Rule, " "), Why: o.Why, Key: fmt.Sprintf("order %q %q %d", o.Device, o.Rule, o.N)}
	if o.Out {
		e.Do = "service.out"
	}
	if o.Until != nil {
		e.Changes = append(e.Changes, "until "+clockTime(*o.Until))
	}
	return e
}

// An auditQuery is what is asked of the audit.
type auditQuery struct {
	from, to   time.Time // to is not in it
	by, do, on string    // do may end with a dot: all of that group
	limit      int
}

func auditQueryOf(query url.Values, now time.Time) (q auditQuery, err error) {
	q = auditQuery{to: now.Add(time.Hour), by: query.Get("by"), do: query.Get("do"), on: query.Get("on"), limit: usualAuditAnswer}
	if text := query.Get("from"); text != "" {
		if q.from, err = moment(text); err != nil {
			return q, fmt.Errorf("from: %w", err)
		}
	}
	if text := query.Get("to"); text != "" {
		if q.to, err = moment(text); err != nil {
			return q, fmt.Errorf("to: %w", err)
		}
		if len(text) == len("2006-01-02") {
			q.to = q.to.AddDate(0, 0, 1) // the whole day
		}
	}
	if !q.from.Before(q.to) {
		return q, fmt.Errorf("from: %s is not before %s", clockTime(q.from), clockTime(q.to))
	}
	if text := query.Get("limit"); text != "" {
		if q.limit, err = strconv.Atoi(text); err != nil || q.limit < 1 || q.limit > maxAuditAnswer {
			return q, fmt.Errorf("limit: %q is not in 1..%d", text, maxAuditAnswer)
		}
	}
	return q, nil
}

func (q *auditQuery) wants(e *auditEntry) bool {
	return (q.by == "" || e.By == q.by) && (q.on == "" || e.On == q.on) &&
		(q.do == "" || e.Do == q.do || strings.HasPrefix(e.Do, strings.TrimSuffix(q.do, ".")+"."))
}

// list returns the newest changes that a query asks for, the newest first.
func (a *audit) list(ctx context.Context, q auditQuery) ([]auditEntry, error) {
	out := []auditEntry{}
	seen := map[string]bool{} // keys
	err := a.archive.Each(ctx, q.from, q.to, nil, func(e auditEntry) error {
		if !q.wants(&e) || e.Key != "" && seen[e.Key] {
			return nil
		}
		if e.Key != "" {
			seen[e.Key] = true
		}
		if out = append(out, e); len(out) >= 2*q.limit {
			for _, gone := range out[:len(out)-q.limit] {
				delete(seen, gone.Key)
			}
			out = slices.Clone(out[len(out)-q.limit:])
		}
		return nil
	})
	slices.SortStableFunc(out, func(a, b auditEntry) int { return b.At.Compare(a.At) })
	return out[:min(len(out), q.limit)], err
}

// audited answers a query of the API.
func (g *instance) audited(ctx context.Context, query url.Values) (any, error) {
	if g.audit == nil {
		return nil, errors.New("a replay has no audit")
	}
	q, err := auditQueryOf(query, time.Now())
	if err != nil {
		return nil, err
	}
	list, err := g.audit.list(ctx, q)
	if err != nil && len(list) == 0 {
		return nil, fmt.Errorf("%w: %w", console.ErrUnavailable, err)
	}
	if err != nil {
		g.logger.Error("a part of the audit cannot be read", "error", err)
	}
	return list, nil
}

// actorOf names who asks: the account, else what the request says.
func actorOf(ctx context.Context, said string) string {
	if a := telemetry.AccountOf(ctx); a != nil && a.Name != "" {
		return a.Name
	}
	return said
}
