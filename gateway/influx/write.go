package influx

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	influxhttp "github.com/influxdata/influxdb-client-go/v2/api/http"

	"haidang/gateway/telemetry"
)

// batchLines and batchBytes bound one write request.
const (
	batchLines = 5000
	batchBytes = 4 << 20
)

// maxRetryAfter bounds how long a server can put us off at a time.
const maxRetryAfter = time.Minute

// Reasons of a Rejection.
const (
	ReasonTypeConflict = "type_conflict"    // the field has another type already
	ReasonUnparsable   = "unparsable"       // not line protocol
	ReasonTooOld       = "beyond_retention" // older than what is kept
	ReasonTooLarge     = "too_large"        // the line alone exceeds what the server takes
	ReasonTooMany      = "too_many_series"  // a limit of the engine's index
	ReasonRefused      = "refused"          // another reason; the detail has InfluxDB's words
)

// ErrClosed says that the store was closed.
var ErrClosed = errors.New("the InfluxDB store is closed")

// Write stores lines of line protocol and returns when InfluxDB has answered;
// see the package documentation for what the answer means. The error is nil, a
// *telemetry.Rejection whose records are the lines that were refused, counted
// from 0 without empty lines, or an error after which everything is to be sent
// again. Lines whose measurement begins with "_" are not stored.
//
// When a server asks to be left alone for a while (Retry-After), the next Write
// waits for that time first.
func (s *Store) Write(ctx context.Context, lines []byte) error {
	s.inflight.RLock()
	defer s.inflight.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.waitTurn(ctx); err != nil {
		return err
	}
	var rejected []telemetry.RejectedRecord
	rest := splitLines(lines)
	for len(rest) > 0 {
		n := batchLength(rest)
		batch := delivery{store: s}
		if err := batch.send(ctx, rest[:n]); err != nil {
			return err
		}
		if err := batch.doubt(n); err != nil {
			s.metrics.failures.WithLabelValues("unexplained").Inc()
			return err
		}
		rejected = append(rejected, batch.rejected...)
		rest = rest[n:]
	}
	if len(rejected) == 0 {
		return nil
	}
	for _, r := range rejected {
		s.metrics.rejected.WithLabelValues(r.Reason).Inc()
	}
	return &telemetry.Rejection{Records: rejected}
}

// batchLength returns how many of the lines go into one request: at least one.
func batchLength(lines []line) int {
	size := 0
	for i, l := range lines {
		size += len(l.text) + 1
		if i > 0 && (i == batchLines || size > batchBytes) {
			return i
		}
	}
	return len(lines)
}

// waitTurn waits until the time that the server named in its last Retry-After.
func (s *Store) waitTurn(ctx context.Context) error {
	wait := time.Until(time.Unix(0, s.notBefore.Load()))
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(min(wait, maxRetryAfter))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for InfluxDB at %s: %w", s.address, ctx.Err())
	}
}

// delivery is one batch on its way, in as many requests as it takes to know the
// fate of each line.
type delivery struct {
	store       *Store
	accepted    int
	rejected    []telemetry.RejectedRecord
	unexplained int // rejected without words that we know to be about a line
}

// send writes the lines. Where InfluxDB refuses some, it halves the batch until
// each line was either accepted or refused by itself. Lines keep their order,
// so that of two values for the same series and time the last stays.
func (d *delivery) send(ctx context.Context, lines []line) error {
	err := d.store.post(ctx, lines)
	if err == nil {
		d.accepted += len(lines)
		d.store.metrics.written.Add(float64(len(lines)))
		return nil
	}
	var no *refusal
	if !errors.As(err, &no) {
		return err
	}
	if len(lines) == 1 || no.all(len(lines)) {
		for _, l := range lines {
			d.reject(l, no)
		}
		return nil
	}
	half := len(lines) / 2
	if err := d.send(ctx, lines[:half]); err != nil {
		return err
	}
	return d.send(ctx, lines[half:])
}

func (d *delivery) reject(l line, no *refusal) {
	if !no.known {
		d.unexplained++
	}
	d.rejected = append(d.rejected, telemetry.RejectedRecord{Index: l.index, Reason: no.reason, Detail: no.message})
}

// doubt returns an error when every line of the batch was refused in words that
// do not speak of lines: that is a fault of the configuration, as a wrong
// organisation, and no reason to set readings aside.
func (d *delivery) doubt(n int) error {
	if d.unexplained == 0 || d.unexplained < n {
		return nil
	}
	return fmt.Errorf("write to InfluxDB at %s: all %d lines refused: %s", d.store.address, n, d.rejected[0].Detail)
}

// post sends one request. The error is a *refusal when InfluxDB has judged the
// lines, else one after which they are to be sent again.
func (s *Store) post(ctx context.Context, lines []line) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout.Std())
	defer cancel()
	began := time.Now()
	err := s.writer.WriteRecord(ctx, join(lines))
	s.metrics.observe(began)
	if err == nil {
		return nil
	}
	var answer *influxhttp.Error
	if !errors.As(err, &answer) {
		answer = influxhttp.NewError(err)
	}
	if no := judge(answer); no != nil {
		return no
	}
	if s.engine != nil && answer.StatusCode >= 500 && sickness(answer.Message) {
		s.sick.Store(true)
	}
	s.metrics.failures.WithLabelValues(failure(answer.StatusCode)).Inc()
	if answer.RetryAfter > 0 {
		after := min(time.Duration(answer.RetryAfter)*time.Second, maxRetryAfter)
		s.notBefore.Store(time.Now().Add(after).UnixNano())
	}
	return fmt.Errorf("write %d lines to InfluxDB at %s: %w", len(lines), s.address, err)
}

// failure names the cause of a write that is tried again, for counting.
func failure(status int) string {
	switch {
	case status == 0:
		return "unreachable"
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return "unauthorized"
	case status == http.StatusNotFound:
		return "not_found"
	case status == http.StatusTooManyRequests:
		return "throttled"
	case status >= 500:
		return "server_error"
	}
	return "other"
}

// sickness reports whether the words of the embedded engine speak of its files.
// After such an error the engine does not write again, with room on the disk or
// without, until it is opened again: its buffered writers keep the error.
func sickness(message string) bool {
	for _, words := range [...]string{"WAL", "/wal/", "no space left", "input/output error", "read-only file system", "short write"} {
		if strings.Contains(message, words) {
			return true
		}
	}
	return false
}

// refusal is InfluxDB's answer that it cannot store some of the lines.
type refusal struct {
	reason  string
	message string
	known   bool // the words are about lines, not about the request
	dropped int  // how many lines InfluxDB says it dropped, 0 when it does not
}

func (r *refusal) Error() string { return r.message }

// all reports whether every one of n lines was refused, so that there is
// nothing to search.
func (r *refusal) all(n int) bool { return r.dropped == n }

// droppedCount finds how many lines InfluxDB dropped; the last such words count,
// because names from the lines stand before them.
var droppedCount = regexp.MustCompile(`(?s)partial write: .* dropped=([0-9]+)`)

// pendingDeletion is the answer of a shard that is being dropped, which refuses
// everything for that time only.
var pendingDeletion = regexp.MustCompile(`^partial write: shard [0-9]+ is pending deletion`)

// judge returns the refusal that an answer is, or nil when the lines are to be
// sent again. InfluxDB 1.x answers 400 for what it cannot store, 2.x also 422.
func judge(answer *influxhttp.Error) *refusal {
	message := answer.Message
	if message == "" {
		message = answer.Error()
	}
	no := &refusal{reason: ReasonRefused, message: message}
	switch answer.StatusCode {
	case http.StatusRequestEntityTooLarge:
		no.reason, no.known = ReasonTooLarge, true
		return no
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
	default:
		return nil
	}
	if pendingDeletion.MatchString(message) {
		return nil
	}
	// An answer about syntax repeats the lines, which may say anything.
	if m := droppedCount.FindStringSubmatch(message); m != nil && !strings.Contains(message, "unable to parse") {
		no.dropped, _ = strconv.Atoi(m[1])
	}
	for _, w := range [...]struct{ words, reason string }{
		{"type conflict", ReasonTypeConflict},
		{"already exists as type", ReasonTypeConflict},
		{"retention policy of duration", ReasonTooOld},
		{"beyond retention policy", ReasonTooOld},
		{"outside retention", ReasonTooOld},
		{"unable to parse", ReasonUnparsable},
		{"max-values-per-tag", ReasonTooMany},
		{"max-series-per-database", ReasonTooMany},
		{"partial write", ReasonRefused},
	} {
		if strings.Contains(message, w.words) {
			no.reason, no.known = w.reason, true
			break
		}
	}
	return no
}
