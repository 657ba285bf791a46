package uplink

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"haidang/gateway/telemetry"
)

// hello answers where the centre is, and keeps the heartbeat as a reading.
func (r *Receiver) hello(request *http.Request, body []byte) (any, error) {
	var h Hello
	if err := json.Unmarshal(body, &h); err != nil {
		return nil, refuse(http.StatusBadRequest, reasonBody, "read the hello: %v", err)
	}
	g, err := r.guest(request, h.Gateway, h.Epoch, &h)
	if err != nil {
		return nil, err
	}
	offset := h.Now.Sub(r.d.Now())
	welcome := Welcome{Gateway: r.d.Gateway}
	r.mu.Lock()
	g.state, g.offset = h.State, offset
	delete(g.said, reasonTwo)
	isOdd := offset > odd || offset < -odd
	tell := isOdd && !g.oddly
	g.oddly = isOdd
	if s := r.memory.of(h.Gateway, h.Epoch); s != nil {
		if s.Readings.Seq > 0 {
			at := s.Readings
			welcome.Readings = &at
		}
		if s.Warnings != nil {
			at := *s.Warnings
			welcome.Warnings = &at
		}
	}
	if s := r.memory.of(h.Gateway, h.Was); s != nil && h.Was != "" {
		at := s.Readings
		welcome.Was = &at
	}
	r.mu.Unlock()
	r.metrics.lag.WithLabelValues(h.Gateway).Set(h.State.LagSeconds)
	r.metrics.offset.WithLabelValues(h.Gateway).Set(offset.Seconds())
	if tell {
		r.d.Logger.Warn("the clock of a gateway is off: its readings keep its times", "gateway", h.Gateway, "ahead_s", offset.Round(time.Second).Seconds())
	}
	if h.Beat {
		select {
		case r.beats <- beat{h.Gateway, h.reading(offset)}:
		default:
			r.metrics.refusals.WithLabelValues("beat").Inc()
		}
	}
	return welcome, nil
}

// source is what a gateway is called where readings say who delivered them.
func source(gateway string) string { return "uplink." + gateway }

// reading is the heartbeat as rules see it.
func (h *Hello) reading(offset time.Duration) telemetry.Reading {
	r := telemetry.Reading{Device: h.Gateway, Kind: telemetry.KindGateway}
	for _, v := range []struct {
		name  string
		value float64
	}{
		{"lag_frames", h.State.LagFrames}, {"lag_s", h.State.LagSeconds}, {"warnings_lag_frames", h.State.WarningsLag},
		{"readings_per_s", h.State.ReadingsPerS}, {"spool_bytes", h.State.SpoolBytes}, {"clock_offset_s", offset.Round(time.Millisecond).Seconds()},
	} {
		if telemetry.Finite(v.value) {
			r.Values = append(r.Values, telemetry.Value{Name: v.name, Number: v.value})
		}
	}
	if h.State.SpoolMax > 0 {
		r.Values = append(r.Values, telemetry.Value{Name: "spool_pct", Number: 100 * h.State.SpoolBytes / h.State.SpoolMax})
	}
	if h.State.Version != "" {
		r.Values = append(r.Values, telemetry.Value{Name: "version", Text: h.State.Version[:min(len(h.State.Version), 64)]})
	}
	return r
}

// open unpacks a parcel and finds its guest.
func (r *Receiver) open(request *http.Request, body []byte) (*guest, *parcel, []byte, error) {
	if encoding := request.Header.Get("Content-Encoding"); encoding != "zstd" {
		return nil, nil, nil, refuse(http.StatusUnsupportedMediaType, reasonBody, "Content-Encoding %q is not zstd", encoding)
	}
	plain, err := r.press.unpack(body)
	if errors.Is(err, errLarge) {
		return nil, nil, nil, refuse(http.StatusRequestEntityTooLarge, reasonTooLarge, "%v", err)
	}
	if err != nil {
		return nil, nil, nil, refuse(http.StatusBadRequest, reasonBody, "unpack the body: %v", err)
	}
	head := &parcel{}
	rest, err := splitHead(plain, head)
	if err != nil {
		return nil, nil, nil, refuse(http.StatusBadRequest, reasonBody, "read the body: %v", err)
	}
	g, err := r.guest(request, head.Gateway, head.Epoch, nil)
	if err == nil {
		r.metrics.bytes.WithLabelValues(head.Gateway).Add(float64(len(body)))
	}
	return g, head, rest, err
}

// readings takes a parcel of readings: all of it, or up to where the log refuses.
func (r *Receiver) readings(request *http.Request, body []byte) (any, error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-request.Context().Done():
		return nil, request.Context().Err()
	}
	g, head, rest, err := r.open(request, body)
	if err != nil {
		return nil, err
	}
	parts, err := splitParts(rest)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, reasonBody, "read the body: %v", err)
	}
	g.turn.Lock()
	defer g.turn.Unlock()
	if err := r.settle(request.Context()); err != nil {
		return nil, err
	}
	beyond, err := r.fits(head)
	if err != nil {
		return nil, err
	}
	if head.Lost > 0 {
		r.metrics.lost.WithLabelValues(head.Gateway).Add(float64(head.Lost))
		r.d.SetAside(telemetry.DeadLetter{Source: source(head.Gateway), Place: fmt.Sprintf("%s readings %d-%d", head.Gateway, head.After.Seq+1, head.To.Seq),
			Reason: "gap", Detail: fmt.Sprintf("%d frames were gone from the log of gateway %s before they were pushed", head.Lost, head.Gateway)}, nil)
	}
	l := &load{r: r, head: head, account: telemetry.AccountOf(request.Context()), beyond: beyond}
	for i := range parts {
		if err := l.add(&parts[i], i+1 == len(parts) || parts[i+1].seq != parts[i].seq); err != nil {
			return nil, err
		}
	}
	l.to = head.To
	return struct{}{}, l.write()
}

// fits returns why a parcel does not come after what is known; if it does, the devices
// of which more is on disk.
func (r *Receiver) fits(head *parcel) (beyond map[string]Position, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := Position{}
	if s := r.memory.of(head.Gateway, head.Epoch); s != nil {
		at, beyond = s.Readings, maps.Clone(s.Beyond)
	}
	if !at.same(head.After) {
		return nil, refuse(http.StatusConflict, reasonPlace, "the parcel is for after frame %d, line %d; the centre is at frame %d, line %d", head.After.Seq, head.After.Line, at.Seq, at.Line)
	}
	return beyond, nil
}

// warnings takes told warnings.
func (r *Receiver) warnings(request *http.Request, body []byte) (any, error) {
	g, head, rest, err := r.open(request, body)
	if err != nil {
		return nil, err
	}
	g.turn.Lock()
	defer g.turn.Unlock()
	var steps []telemetry.Transition
	known := map[string]bool{}
	for line := range bytes.Lines(rest) {
		var t told
		err := json.Unmarshal(line, &t)
		if err == nil {
			err = t.faulty()
		}
		if err != nil {
			r.d.SetAside(telemetry.DeadLetter{Source: source(head.Gateway), Place: fmt.Sprintf("%s warnings %d", head.Gateway, head.To.Seq), Reason: "bad_warning", Detail: err.Error(), Bytes: line}, nil)
			continue
		}
		step := t.step(head.Gateway)
		if step.State == telemetry.Cleared && !known[step.ID] && !r.d.Stands(step.ID) {
			continue // nobody was told of it here
		}
		known[step.ID] = true
		steps = append(steps, step)
	}
	if err := r.d.Step(request.Context(), steps); err != nil {
		return nil, fmt.Errorf("the log of the centre does not take warnings now: %w", err)
	}
	if head.All {
		if err := r.d.End(request.Context(), head.Gateway, known); err != nil {
			return nil, fmt.Errorf("the log of the centre does not take warnings now: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.memory.enter(head.Gateway, head.Epoch); s != nil {
		at := Position{Seq: head.To.Seq}
		if s.Warnings != nil {
			at.Seq = max(at.Seq, s.Warnings.Seq)
		}
		s.Warnings = &at
		r.changed = true
	}
	r.metrics.records.WithLabelValues(head.Gateway, logWarnings).Add(float64(len(steps)))
	return struct{}{}, nil
}

// faulty returns why a told warning cannot be one.
func (t *told) faulty() error {
	w := &t.Warning
	switch {
	case w.ID == "" || len(w.ID) > 128 || strings.Trim(w.ID, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("id %q is not one of a-z, 0-9 and -", w.ID)
	case w.N < 1:
		return fmt.Errorf("n %d is not from 1", w.N)
	case !telemetry.ValidName(w.Device), !telemetry.ValidName(w.Rule), w.Kind != "" && !telemetry.ValidName(w.Kind), w.Site != "" && !telemetry.ValidName(w.Site):
		return fmt.Errorf("device %q, rule %q, kind %q or site %q is not a name", w.Device, w.Rule, w.Kind, w.Site)
	case len(w.Message.VI)+len(w.Message.EN) > 16<<10, !utf8.ValidString(w.Message.VI + w.Message.EN):
		return errors.New("its message is longer than 16 KiB, or no text")
	case w.Severity > telemetry.Extreme:
		return fmt.Errorf("severity %d is not one", w.Severity)
	}
	switch w.State {
	case telemetry.Active, telemetry.Acknowledged, telemetry.Shelved, telemetry.Returned, telemetry.Cleared:
		return nil
	}
	return fmt.Errorf("state %q does not travel", w.State)
}

// step is the told warning as a step of an engine that is elsewhere. What operators
// have done in the field is not taken over, nor whom the field tells.
func (t *told) step(gateway string) telemetry.Transition {
	w := t.Warning
	step := telemetry.Transition{Warning: w, Step: w.N}
	step.ID, step.Gateway = prefix(gateway)+"-"+w.ID, gateway
	step.Source, step.Sources = source(gateway), nil
	step.Happened = w.At
	step.To, step.AckedBy, step.AssignedTo, step.Expires = nil, "", "", nil
	step.FalseAlarm, step.Quiet, step.Shadow, step.Exercise = false, false, false, false
	switch w.State {
	case telemetry.Acknowledged, telemetry.Shelved:
		step.State = telemetry.Active
	case telemetry.Returned:
		step.State = telemetry.Cleared // it latches here too, until somebody acknowledges it here
	}
	return step
}

// prefix is a gateway's name as the beginning of an id: in a-z, 0-9 and single hyphens,
// with some digits of a hash where that is not the name itself.
func prefix(gateway string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(gateway) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() >= 24 {
			break
		}
	}
	text := strings.Trim(b.String(), "-")
	if text != gateway {
		sum := sha256.Sum256([]byte(gateway))
		text = strings.TrimPrefix(text+"-"+hex.EncodeToString(sum[:3]), "-")
	}
	return text
}
