package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"haidang/gateway/telemetry"
)

// Forward publishes those of the readings that the configuration asks for, and
// returns nil when the other broker has acknowledged all of them. received is when
// they came, now is log time: what is older than Forward.Keep is dropped and
// counted when it cannot be sent. It is not called twice at a time.
func (b *Bridge) Forward(ctx context.Context, readings []telemetry.Reading, received, now time.Time) error {
	var chosen []*telemetry.Reading
	for i := range readings {
		if b.wants(&readings[i]) {
			chosen = append(chosen, &readings[i])
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	keep := b.cfg.Forward.Keep.Std()
	if keep == 0 {
		keep = defaultKeep
	}
	old := now.Sub(received) > keep
	if old && time.Since(b.failed) < oldPause {
		// An attempt for each would take longer than it takes for the next to come: the
		// log would fill up.
		b.metrics.dropped(dropOld, len(chosen))
		return nil
	}
	err := b.send(ctx, chosen)
	if err == nil {
		b.metrics.forwarded.Add(float64(len(chosen)))
		b.failed = time.Time{}
		return nil
	}
	b.hangUp()
	if ctx.Err() == nil {
		b.failed = time.Now()
		if old {
			b.metrics.dropped(dropOld, len(chosen))
			return nil
		}
	}
	return fmt.Errorf("forward to %s: %w", b.cfg.Connect, err)
}

// hangUp ends the connection over which readings were forwarded.
func (b *Bridge) hangUp() {
	if b.out != nil {
		b.out.Disconnect(quietly)
		b.out = nil
	}
}

// Close ends the connection of Forward.
func (b *Bridge) Close() error {
	b.hangUp()
	return nil
}

func (b *Bridge) wants(r *telemetry.Reading) bool {
	f := &b.cfg.Forward
	switch {
	case r.Control(), r.Source == b.Source(), r.Device == b.cfg.Name && r.Kind == telemetry.KindLink:
		return false
	case len(f.Kinds) > 0 && !slices.Contains(f.Kinds, r.Kind):
		return false
	case len(f.Devices) == 0:
		return true
	}
	return slices.ContainsFunc(f.Devices, func(pattern string) bool {
		ok, _ := path.Match(pattern, r.Device)
		return ok
	})
}

// send publishes readings, up to maxInFlight of them unacknowledged.
func (b *Bridge) send(ctx context.Context, readings []*telemetry.Reading) error {
	if b.out == nil || !b.out.IsConnectionOpen() {
		b.hangUp()
		options, err := b.options(b.client + "-out")
		if err != nil {
			return err
		}
		// What was not acknowledged is published again by the log's position, so
		// neither side has to keep a session.
		b.out = paho.NewClient(options.SetCleanSession(true))
		if err := wait(ctx, b.out.Connect(), connectTimeout); err != nil {
			return err
		}
	}
	var tokens []paho.Token
	for _, r := range readings {
		payload, err := payloadOf(r)
		if err != nil {
			return err
		}
		topic := strings.NewReplacer("{device}", r.Device, "{kind}", r.Kind, "{site}", r.Site).Replace(b.cfg.Forward.Topic)
		tokens = append(tokens, b.out.Publish(topic, 1, false, payload))
		if len(tokens) == maxInFlight {
			if err := wait(ctx, tokens[0], ackTimeout); err != nil {
				return err
			}
			tokens = tokens[1:]
		}
	}
	for _, t := range tokens {
		if err := wait(ctx, t, ackTimeout); err != nil {
			return err
		}
	}
	return nil
}

// payloadOf is a reading as JSON, as on telemetry/{device}/{kind}; tags are words.
func payloadOf(r *telemetry.Reading) ([]byte, error) {
	fields := map[string]any{"time": r.Time.UTC().Format(time.RFC3339Nano)}
	for _, t := range r.Tags {
		fields[t.Key] = t.Value
	}
	qualities := map[string]telemetry.Quality{}
	for i := range r.Values {
		v := &r.Values[i]
		if v.Text != "" {
			fields[v.Name] = v.Text
		} else {
			fields[v.Name] = v.Number
		}
		if v.Quality != telemetry.Good {
			qualities[v.Name] = v.Quality
		}
	}
	switch {
	case len(qualities) > 0:
		fields["quality"] = qualities
	case r.Quality != telemetry.Good:
		fields["quality"] = r.Quality
	}
	payload, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("write a reading of %s as JSON: %w", r.Device, err)
	}
	return payload, nil
}
