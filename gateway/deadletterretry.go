package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"haidang/broker"
	"haidang/gateway/console"
	"haidang/gateway/intake"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// wayBack returns what retries a letter, or why that cannot be done. The way
// back goes through the parser that refused the bytes; unsure says that nobody
// knows whether they came through.
func (l *letterbox) wayBack(letter *telemetry.DeadLetter) (func(ctx context.Context) (unsure bool, err error), error) {
	if len(letter.Bytes) >= telemetry.MaxDeadLetterBytes {
		return nil, fmt.Errorf("only the first %d bytes were kept: the device has to send it again", telemetry.MaxDeadLetterBytes)
	}
	if len(letter.Bytes) == 0 {
		return nil, errors.New("nothing of it was kept")
	}
	if r, ok := intake.ParseAside(letter); ok {
		return l.takeIn(letter, func() ([]telemetry.Reading, error) { return []telemetry.Reading{r}, nil }), nil
	}
	switch {
	case (letter.Source == "broker" || strings.HasPrefix(letter.Source, "bridge.")) && l.g.broker != nil:
		return l.takeIn(letter, func() ([]telemetry.Reading, error) { return l.g.broker.Again(letter.Place, letter.Bytes) }), nil
	case letter.Source == "influx.write":
		return l.takeIn(letter, func() ([]telemetry.Reading, error) {
			r, err := broker.ParseLine(letter.Bytes, 0)
			return []telemetry.Reading{r}, err
		}), nil
	case letter.Source == followStore && strings.HasPrefix(letter.Place, "readings"):
		return l.storeAgain(letter), nil
	}
	return nil, fmt.Errorf("what %s sets aside cannot be taken in again: drop it when you have seen it", letter.Source)
}

// takeIn gives readings to the intake, as their source would. Those without a
// time get that of the letter: when they came.
func (l *letterbox) takeIn(letter *telemetry.DeadLetter, parse func() ([]telemetry.Reading, error)) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		readings, err := parse()
		if err == nil && len(readings) == 0 {
			err = errors.New("there is no reading in it")
		}
		if err != nil {
			return false, refused(letter.Reason, err.Error())
		}
		for i := range readings {
			if reason, detail := l.g.intake.Refusal(&readings[i]); reason != "" {
				return false, refused(reason, detail)
			}
			if readings[i].Time.IsZero() {
				readings[i].Time = letter.At
			}
		}
		done := make(chan error, 1)
		l.g.intake.Accept(letter.Source, readings, func(err error) { done <- err })
		select {
		case err := <-done:
			if errors.Is(err, spool.ErrFull) {
				return false, fmt.Errorf("%w: %w", console.ErrUnavailable, err)
			}
			return err != nil, err
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
}

// storeAgain writes a line that the store refused to the store, and to nobody
// else: the log and the rules have had it. A point that is written twice is one.
func (l *letterbox) storeAgain(letter *telemetry.DeadLetter) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		err := l.g.store.Write(ctx, append(bytes.TrimRight(letter.Bytes, "\n"), '\n'))
		var again *telemetry.Rejection
		switch {
		case errors.As(err, &again) && len(again.Records) > 0:
			return false, refused(again.Records[0].Reason, again.Records[0].Detail)
		case err != nil:
			return false, fmt.Errorf("%w: %w", console.ErrUnavailable, err)
		}
		return false, nil
	}
}

func refused(reason, detail string) error {
	return &stillRefused{&telemetry.Rejection{Records: []telemetry.RejectedRecord{{Reason: reason, Detail: detail}}}}
}

// A stillRefused letter was retried and is as useless as before.
type stillRefused struct{ rejection *telemetry.Rejection }

func (s *stillRefused) Error() string {
	return "it still cannot be used: " + s.rejection.Records[0].Detail
}

func (s *stillRefused) Unwrap() error { return s.rejection }

// letterTime writes when a letter was set aside.
func letterTime(t time.Time) string { return t.In(vietnam).Format("02/01 15:04:05") }
