package spool

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The header of a frame; see the package for its format.
const (
	frameHeader  = "Haidang-Frame"
	frameVersion = 1
)

// A frameHead is what the header says.
type frameHead struct {
	received time.Time
	count    int // lines
	controls int // lines of the log's own kinds, at most
	sources  string
}

func parseHead(h nats.Header) (frameHead, error) {
	text := h.Get(frameHeader)
	parts := strings.Split(text, " ")
	if len(parts) != 4 || parts[0] != strconv.Itoa(frameVersion) {
		return frameHead{}, fmt.Errorf("header %s: %q is not like \"%d <Unix ns> <lines> <control lines>\"", frameHeader, text, frameVersion)
	}
	ns, err1 := strconv.ParseInt(parts[1], 10, 64)
	count, err2 := strconv.Atoi(parts[2])
	controls, err3 := strconv.Atoi(parts[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		return frameHead{}, fmt.Errorf("header %s: %w", frameHeader, err)
	}
	return frameHead{received: time.Unix(0, ns).UTC(), count: count, controls: controls, sources: h.Get(sourcesHeader)}, nil
}

// A logClock gives receipt times: those of the clock, but never decreasing.
type logClock struct {
	last time.Time // given last
	seen time.Time // of the clock then
}

// now returns the receipt time of what is received at t. While the clock lies
// behind log time, log time goes on at the clock's pace, so that whatever waits
// for it still ends.
func (c *logClock) now(t time.Time) time.Time {
	pace := c.last
	if !c.seen.IsZero() {
		pace = c.last.Add(max(t.Sub(c.seen), 0))
	}
	c.seen = t
	c.last = t.Round(0).UTC()
	if c.last.Before(pace) {
		c.last = pace
	}
	return c.last
}

// behind makes log time go on from t, when that is later: a frame of another
// machine was received then, as it seems now.
func (c *logClock) behind(t, now time.Time) {
	if t.After(c.last) {
		c.last, c.seen = t.UTC(), now
	}
}

// given returns the receipt time of what is said to be received at t. It is not
// the clock's, so it says nothing about the clock's pace.
func (c *logClock) given(t time.Time) time.Time {
	c.seen = time.Time{}
	if t = t.Round(0).UTC(); t.After(c.last) {
		c.last = t
	}
	return c.last
}

// streamConfig says how JetStream keeps the log.
func (c *core) streamConfig() jetstream.StreamConfig {
	return streamConfig(c.spool.config, c.place)
}

func streamConfig(config Config, at place) jetstream.StreamConfig {
	s := jetstream.StreamConfig{
		Name:        at.stream,
		Description: "haidang: " + at.name,
		Subjects:    at.subjects,
		Storage:     jetstream.FileStorage,
		Replicas:    config.Replicas,
		MaxMsgSize:  serverMaxPayload,
		Discard:     jetstream.DiscardOld,
	}
	switch at.kind {
	case logReadings:
		s.MaxBytes, s.MaxAge = int64(config.MaxBytes)/int64(max(config.Partitions, 1)), config.MaxAge.Std()
		if config.Full == Refuse {
			s.Discard = jetstream.DiscardNew
		}
	case logWarnings:
		s.MaxBytes, s.MaxAge = warningsMaxBytes, warningsMaxAge
	case logSteps: // an engine whose steps nobody takes waits: none may be missed
		s.MaxBytes, s.MaxAge, s.Discard = warningsMaxBytes, warningsMaxAge, jetstream.DiscardNew
	case logAttempts:
		s.MaxBytes, s.MaxAge = attemptsMaxBytes, warningsMaxAge
	case logLetters:
		s.MaxBytes, s.MaxAge = lettersMaxBytes, lettersMaxAge
	}
	s.Duplicates = min(2*time.Minute, s.MaxAge)
	return s
}

// noteState notes where the log begins, and where it ends when there is no note
// of it or the log goes on behind it; see ends.
func (c *core) noteState(state jetstream.StreamState) {
	if c.spool.ends == nil {
		return
	}
	c.spool.ends.note(c.name, func(e end) end {
		e.first = max(e.first, state.FirstSeq)
		if state.LastSeq > e.last {
			e.last, e.received = state.LastSeq, state.LastTime.UnixNano()
		}
		return e
	})
}

// open makes or adapts the stream and learns where it ends.
func (c *core) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	var stream jetstream.Stream
	var err error
	if c.spool.cluster == nil {
		stream, err = c.spool.link.append.CreateOrUpdateStream(ctx, c.streamConfig())
	} else {
		stream, err = c.spool.link.append.Stream(ctx, c.stream) // agreed on
	}
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", c.name, err)
	}
	state := stream.CachedInfo().State
	c.last.Store(state.LastSeq)
	if c.exclusive() {
		c.acked = state.LastSeq
	}
	c.storedBytes.Store(int64(state.Bytes))
	c.noteState(state)
	if state.Msgs == 0 {
		return nil
	}
	// The newest frame may have gone by its age, or the disk may have lost it: then
	// log time goes on from when it was written.
	m, err := stream.GetMsg(ctx, state.LastSeq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		c.clock.last = state.LastTime.UTC()
		c.lastReceived.Store(state.LastTime.UnixNano())
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the last frame of the %s: %w", c.name, err)
	}
	if head, err := parseHead(m.Header); err == nil {
		c.clock.last = head.received
		c.lastReceived.Store(head.received.UnixNano())
	}
	return nil
}
