package ioc

import (
	"context"
	"time"

	"haidang/gateway/telemetry"
)

// A Told is one attempt to tell a recipient of a transition, and what came of it.
type Told struct {
	Recipient string
	Via       string // the protocol
	At        time.Time
	Took      time.Duration
	Accepted  bool
	Digest    string // key of the message that told it together with others; "" for one of its own
	Answer    string // what the recipient answered, as far as its protocol says, or the error
}

type answerKey struct{}

// answered notes what the recipient answered to the attempt that ctx is of.
func answered(ctx context.Context, answer string) {
	if into, ok := ctx.Value(answerKey{}).(*string); ok {
		*into = answer
	}
}

// listening returns a context in which answered notes into answer.
func listening(ctx context.Context, answer *string) context.Context {
	return context.WithValue(ctx, answerKey{}, answer)
}

// tell reports an attempt that has ended.
func (r *Recipient) tell(w *telemetry.Warning, began time.Time, digest, answer string, err error) {
	if r.options.Told == nil {
		return
	}
	if err != nil {
		answer = err.Error()
	}
	r.options.Told(w, Told{Recipient: r.name, Via: r.via, At: began.UTC(), Took: time.Since(began), Accepted: delivered(err), Digest: digest, Answer: answer})
}

// Wants reports whether the recipient is told of a transition at all.
func (r *Recipient) Wants(w telemetry.Warning) bool { return r.wants(&w) }
