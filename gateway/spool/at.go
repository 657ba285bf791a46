package spool

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrNoFrame says that a log has no frame of that sequence, or has it no more.
var ErrNoFrame = errors.New("no such frame")

// At returns the records of one frame. It is for people: followers read in
// order.
func (l *Log[T]) At(ctx context.Context, seq uint64) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	what := fmt.Sprintf("read frame %d of the %s", seq, l.core.name)
	if seq == 0 {
		return nil, fmt.Errorf("%s: %w", what, ErrNoFrame)
	}
	stream, err := l.core.spool.current().append.Stream(ctx, l.core.stream)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	m, err := stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, fmt.Errorf("%s: %w", what, ErrNoFrame)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	records, err := l.codec.decoder()(nil, m.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, &DamagedFrame{Seq: seq, Err: err})
	}
	return records, nil
}
