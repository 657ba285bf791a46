package ioc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"haidang/gateway/telemetry"
)

// A Prober is a Deliverer that has a way of its own to be tried.
type Prober interface {
	// Probe tries whether the recipient can be reached. Its error is that of an
	// attempt to deliver.
	Probe(ctx context.Context) error
}

// Try tells the recipient that this is a test, past what waits for it and whether
// its circuit is closed or not, and returns what it answered. Everyone is sent a
// warning that is marked as an exercise, of the rule "test", and then that it is
// over; a siren sounds for a second. The error is that of an attempt to deliver.
func (r *Recipient) Try(ctx context.Context, gateway, by string) (answer string, err error) {
	began := time.Now()
	w := trial(gateway, r.name, by, began.UTC())
	if prober, ok := r.to.(Prober); ok {
		err = prober.Probe(ctx)
	} else {
		err = r.to.Deliver(listening(ctx, &answer), w)
	}
	if ctx.Err() == nil || err == nil {
		r.tell(&w, began, "", answer, err)
		r.gate.noted(began, err)
	}
	if !delivered(err) {
		if ctx.Err() == nil {
			r.failedWith(r.count(err), w.Key(), err)
		}
		return "", err
	}
	r.succeeded()
	if _, isProber := r.to.(Prober); isProber {
		return answer, err
	}
	over := w
	over.N, over.State, over.At = 2, telemetry.Cleared, w.At.Add(time.Second)
	if picker, ok := r.to.(Picker); ok && !picker.Picks(over) {
		return answer, err
	}
	if after := r.to.Deliver(ctx, over); after != nil {
		err = errors.Join(err, fmt.Errorf("it was told of the test, and not that it is over: %w", after))
	}
	return answer, err
}

// trial is the warning of a test.
func trial(gateway, recipient, by string, at time.Time) telemetry.Warning {
	return telemetry.Warning{
		ID: fmt.Sprintf("test-%d", at.UnixMilli()), N: 1, Rule: "test", Device: gateway, Site: gateway, Kind: "test",
		State: telemetry.Active, Severity: telemetry.Minor, Start: at, At: at, Values: map[string]float64{}, To: []string{recipient}, Exercise: true,
		Message: telemetry.Text{
			VI: fmt.Sprintf("%s kiểm tra đường báo từ %s tới %s, không cần làm gì", by, gateway, recipient),
			EN: fmt.Sprintf("%s tests the way from %s to %s, nothing is to be done", by, gateway, recipient),
		},
	}
}
