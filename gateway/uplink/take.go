package uplink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
	if err := r.fits(head); err != nil {
		return nil, err
	}
	if head.Lost > 0 {
		r.metrics.lost.WithLabelValues(head.Gateway).Add(float64(head.Lost))
		r.d.SetAside(telemetry.DeadLetter{Source: source(head.Gateway), Place: fmt.Sprintf("%s readings %d-%d", head.Gateway, head.After.Seq+1, head.To.Seq),
			Reason: "gap", Detail: fmt.Sprintf("%d frames were gone from the log of gateway %s before they were pushed", head.Lost, head.Gateway)}, nil)
	}
	l := &load{r: r, head: head, account: telemetry.AccountOf(request.Context())}
	for i := range parts {
		if err := l.add(&parts[i], i+1 == len(parts) || parts[i+1].seq != parts[i].seq); err != nil {
			return nil, err
		}
	}
	l.to = head.To
	return struct{}{}, l.write()
}

// fits returns why a parcel does not come after what is known, or nil.
func (r *Receiver) fits(head *parcel) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := Position{}
	if s := r.memory.of(head.Gateway, head.Epoch); s != nil {
		at = s.Readings
	}
	if !at.same(head.After) {
		return refuse(http.StatusConflict, reasonPlace, "the parcel is for after frame %d, line %d; the centre is at frame %d, line %d", head.After.Seq, head.After.Line, at.Seq, at.Line)
	}
	return nil
}

// A load is the readings of a parcel on their way into the log, in pieces that fit into
// a frame each.
type load struct {
	r       *Receiver
	head    *parcel
	account *telemetry.Account

	readings []telemetry.Reading
	bytes    int
	to       Position
}

// Bounds of a piece: with its record it is in one frame of 512 KiB.
const (
	maxPiece = 448 << 10
	extra    = 128 // bytes that a line may grow by its delay and the device's time
)

// add takes the lines of a part; whole says that the frame ends with it, as far as the
// parcel has it. A line that cannot be read costs no other.
func (l *load) add(p *part, whole bool) error {
	readings, err := l.r.d.Decode(p.lines)
	n := 0
	for line := range bytes.Lines(p.lines) {
		var reading *telemetry.Reading
		if err == nil && n < len(readings) {
			reading = &readings[n]
		} else if one, bad := l.r.d.Decode(line); bad == nil && len(one) == 1 {
			reading = &one[0]
		} else {
			l.aside(p, line, "", "bad_line", fmt.Sprintf("it is no reading in line protocol: %v", bad))
		}
		n++
		if reading != nil && l.account != nil && !l.account.Speaks(reading.Device) {
			l.aside(p, line, reading.Device, "not_own_device", fmt.Sprintf("account %q does not speak for device %q", l.account.Name, reading.Device))
			reading = nil
		}
		if reading != nil {
			if err := l.put(reading, len(line)+extra+l.r.d.Grows(reading)); err != nil {
				return err
			}
		}
		l.to = Position{Seq: p.seq, Line: p.from + n, Received: p.received}
	}
	if whole {
		l.to = Position{Seq: p.seq, Received: p.received}
	}
	return nil
}

// put adds a reading of that size to the piece.
func (l *load) put(reading *telemetry.Reading, size int) error {
	if l.bytes+size > maxPiece && len(l.readings) > 0 {
		if err := l.write(); err != nil {
			return err
		}
	}
	l.readings = append(l.readings, *reading)
	l.bytes += size
	return nil
}

func (l *load) aside(p *part, line []byte, device, reason, detail string) {
	l.r.d.SetAside(telemetry.DeadLetter{Source: source(l.head.Gateway), Device: device, Place: fmt.Sprintf("%s readings %d", l.head.Gateway, p.seq),
		Reason: reason, Detail: detail, Bytes: line}, nil)
}

// write writes the piece with its record and waits until both are on disk. What comes
// of it is not given up when the gateway is gone meanwhile: its next request waits for
// it, and finds what was written.
func (l *load) write() error {
	r := l.r
	n := len(l.readings)
	written := make(chan error, 1)
	r.writing.RLock()
	defer r.writing.RUnlock()
	before := r.d.Last()
	r.d.Forward(source(l.head.Gateway), l.readings, record(l.head.Gateway, l.head.Epoch, l.to, r.d.Now()), func(err error) { written <- err })
	err := <-written
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if !r.d.Unwritten(err) {
			if !r.unsure {
				r.since = before
			}
			r.unsure, r.since = true, min(r.since, before)
		}
		r.tellLocked(l.head.Gateway, reasonFull, fmt.Sprintf("the log does not take what gateway %s pushes: %v", l.head.Gateway, err))
		return fmt.Errorf("the log of the centre does not take readings now: %w", err)
	}
	if s := r.memory.enter(l.head.Gateway, l.head.Epoch); s != nil {
		s.Readings = l.to
	}
	r.changed = true
	delete(r.guests[l.head.Gateway].said, reasonFull)
	r.metrics.records.WithLabelValues(l.head.Gateway, logReadings).Add(float64(n))
	l.readings, l.bytes = nil, 0
	return nil
}

// settle finds out what became of a write that failed: once a record of ours is on disk
// what came before it is there or never will be, and the log says which.
func (r *Receiver) settle(ctx context.Context) error {
	r.mu.Lock()
	unsure := r.unsure
	r.mu.Unlock()
	if !unsure {
		return nil
	}
	r.writing.Lock()
	defer r.writing.Unlock()
	written := make(chan error, 1)
	r.d.Forward(source(r.d.Gateway), nil, telemetry.Reading{Device: r.d.Gateway, Site: r.d.Gateway, Kind: telemetry.KindUplink, Time: r.d.Now(),
		Values: []telemetry.Value{{Name: "mark", Number: 1}}}, func(err error) { written <- err })
	if err := <-written; err != nil {
		return fmt.Errorf("the log of the centre does not take readings now: %w", err)
	}
	r.mu.Lock()
	from := r.at + 1
	r.mu.Unlock()
	var found []telemetry.Reading
	if err := r.d.Scan(ctx, from, func(one *telemetry.Reading) { found = append(found, *one) }); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range found {
		r.memory.fold(&found[i])
	}
	r.unsure, r.changed = false, true
	return nil
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
