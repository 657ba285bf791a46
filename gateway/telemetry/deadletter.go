package telemetry

import (
	"fmt"
	"time"
)

// MaxDeadLetterBytes is how much of a payload a dead letter keeps.
const MaxDeadLetterBytes = 4 << 10

// A DeadLetter is what was received or read from the log and could not be
// used. It is kept with the reason, counted, and never in the way of the rest.
type DeadLetter struct {
	At     time.Time `json:"at"`
	Source string    `json:"source"`           // who set it aside: broker, ais.thuan-an, influx
	Device string    `json:"device,omitempty"` // when it is known
	Place  string    `json:"place,omitempty"`  // topic, file and line, log and sequence
	Reason string    `json:"reason"`           // one word for counting: bad_json, bad_name, too_large
	Detail string    `json:"detail"`           // the sentence for people: what was expected
	Bytes  []byte    `json:"bytes,omitempty"`  // the first MaxDeadLetterBytes
}

// Trim bounds what the letter carries: at most MaxDeadLetterBytes of payload,
// copied, and a detail of at most 1 KiB.
func (d DeadLetter) Trim() DeadLetter {
	d.Detail = cut(d.Detail, 1<<10)
	d.Place = cut(d.Place, 1<<10)
	if n := len(d.Bytes); n > 0 {
		d.Bytes = append([]byte(nil), d.Bytes[:min(n, MaxDeadLetterBytes)]...)
	}
	return d
}

// A Rejection is the error of a follower that could use a batch but for some
// records. The records that it names are set aside, the others are accepted,
// and the follower's position moves on. Any other error means that the whole
// batch is to be tried again.
type Rejection struct{ Records []RejectedRecord }

// A RejectedRecord names one record of a batch and why it was refused.
type RejectedRecord struct {
	Index  int    // position in the batch, from 0
	Reason string // one word for counting
	Detail string // the sentence for people
}

// Error tells the first reason and how many there are.
func (r *Rejection) Error() string {
	if len(r.Records) == 0 {
		return "no record rejected"
	}
	first := r.Records[0]
	return fmt.Sprintf("%d rejected, first record %d: %s: %s", len(r.Records), first.Index, first.Reason, first.Detail)
}

// An Intake takes in what sources deliver. It is safe for concurrent use.
type Intake interface {
	// Accept stamps, checks and judges the readings and hands them to the log.
	// It blocks while the log's queue is full. done is called exactly once, on
	// another goroutine, and must not block: nil means that every reading is on
	// disk (those that could not be used as dead letters); an error means that
	// the readings may not be acknowledged. done may be nil. The readings belong
	// to the intake from then on.
	Accept(source string, readings []Reading, done func(error))

	// SetAside keeps and counts what could not be made a Reading. done is as in
	// Accept.
	SetAside(letter DeadLetter, done func(error))
}
