package ioc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"haidang/gateway/ioc/cap"
	"haidang/gateway/telemetry"
)

// Bounds of short messages.
const (
	DefaultParts = 4
	maxParts     = 10
	maxPhones    = 50

	smsEvery  = 5 * time.Minute // between looks whether the modem is well
	smsMemory = 256             // warnings of which it is known who was reached, while others are tried again
)

// SMSConfig is a modem with a SIM card, and who gets messages through it. A
// message is sent when a warning is raised, changes its severity or is over.
// Between messages the modem is asked every 5 minutes whether it is in a
// network, so that a dead one is known before the storm.
type SMSConfig struct {
	Connect  string             `yaml:"connect"`  // serial:///dev/ttyUSB2?baud=115200, or tcp://host:port
	PIN      string             `yaml:"pin"`      // of the SIM, 4 to 8 digits; empty: it has none
	To       []string           `yaml:"to"`       // telephone numbers, at most 50
	Language string             `yaml:"language"` // vi (default), en or both
	Parts    int                `yaml:"parts"`    // most messages of 67 characters that one text is joined of, 1 to 10; default DefaultParts
	Timeout  telemetry.Duration `yaml:"timeout"`  // of all messages of one warning, 10s to 10m; default 2m
	Body     telemetry.Text     `yaml:"body"`     // as of TextConfig
}

const (
	defaultSMSTime = 2 * time.Minute
	minSMSTime     = 10 * time.Second
	maxSMSTime     = 10 * time.Minute
)

// Validate reports what is wrong; whether connect can be dialled is not looked
// at.
func (c SMSConfig) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if c.Connect == "" {
		fault("connect", "connect is missing; expected serial:///dev/ttyUSB2?baud=115200")
	}
	if c.PIN != "" && !validPIN(c.PIN) {
		fault("pin", "the PIN is not 4 to 8 digits; write it in quotation marks")
	}
	if len(c.To) == 0 || len(c.To) > maxPhones {
		fault("to", "%d numbers are not in 1..%d", len(c.To), maxPhones)
	}
	for i, number := range c.To {
		if _, _, err := phone(number); err != nil {
			fault(fmt.Sprintf("to[%d]", i), "%v", err)
		}
	}
	if !slices.Contains([]string{"", "vi", "en", "both"}, c.Language) {
		fault("language", "language %q is not one of vi, en, both", c.Language)
	}
	if c.Parts != 0 && (c.Parts < 1 || c.Parts > maxParts) {
		fault("parts", "%d parts are not in 1..%d", c.Parts, maxParts)
	}
	if t := c.Timeout.Std(); t != 0 && (t < minSMSTime || t > maxSMSTime) {
		fault("timeout", "timeout %s is not in %s..%s", c.Timeout, telemetry.Duration(minSMSTime), telemetry.Duration(maxSMSTime))
	}
	return append(faults, TextConfig{Body: c.Body}.Validate()...)
}

func smsTexts() TextConfig {
	return TextConfig{Body: telemetry.Text{VI: "[{grade}] {headline}. {time}", EN: "[{grade}] {headline}. {time}"}}
}

// A Dialer opens lines.
type Dialer func(ctx context.Context, connect string) (ModemLine, error)

// SMS sends warnings as short messages. It is safe for concurrent use: the
// modem is used by one at a time.
type SMS struct {
	texts
	dial     Dialer
	connect  string
	pin      string
	to       []string
	language string
	parts    int
	timeout  time.Duration

	modem     chan struct{}       // taken by who uses the modem; guards what follows
	reference byte                // of the last text in parts
	reached   map[string][]string // numbers that have a warning's message, by its key, until all have it
	order     []string            // keys of reached
	locked    bool                // the SIM has refused the PIN
}

// NewSMS makes a recipient of a valid configuration.
func NewSMS(c SMSConfig, from Bulletins, dial Dialer) *SMS {
	s := &SMS{texts: *newTexts(TextConfig{Body: c.Body}.or(smsTexts()), from), dial: dial, connect: c.Connect, pin: c.PIN, to: c.To,
		language: c.Language, parts: c.Parts, timeout: c.Timeout.Std(), modem: make(chan struct{}, 1), reached: map[string][]string{}}
	if s.parts == 0 {
		s.parts = DefaultParts
	}
	if s.timeout == 0 {
		s.timeout = defaultSMSTime
	}
	return s
}

// Picks reports whether the transition says something about the danger.
func (s *SMS) Picks(w telemetry.Warning) bool { return s.picks(&w) }

// Deliver makes one attempt to send the warning to every number that does not
// have it from an attempt before.
func (s *SMS) Deliver(ctx context.Context, w telemetry.Warning) error {
	b := s.texts.from.Chronicle.Now(w)
	return s.say(ctx, w.Key(), s.text(&b))
}

func (s *SMS) text(b *cap.Bulletin) string {
	var parts []string
	if s.language != "en" {
		parts = append(parts, s.write(b, true).Body)
	}
	if s.language == "en" || s.language == "both" {
		parts = append(parts, s.write(b, false).Body)
	}
	return strings.Join(parts, "\n")
}

// say sends a text to those numbers that have not been reached under this key.
func (s *SMS) say(ctx context.Context, key, text string) error {
	return s.use(ctx, func(m *modem) error {
		var refused []string
		var later error // of a number that may be reached another time
		for _, number := range s.to {
			if slices.Contains(s.reached[key], number) {
				continue
			}
			err := s.sendTo(m, number, text)
			var result *atError
			if errors.As(err, &result) && noSuchNumber(result.cms()) {
				refused = append(refused, fmt.Sprintf("%s: %v", number, err))
				continue
			}
			switch {
			case result != nil: // the others are not kept waiting
				later = err
				continue
			case err != nil:
				return err
			}
			s.remember(key, number)
		}
		switch {
		case later != nil && len(s.reached[key]) > 0:
			// Modem and network are well: one number must not hold back all that follows.
			return &Failure{Reason: reasonModem, OneWarning: true, Partly: true, Detail: fmt.Sprintf("%d of %d numbers have it, not all: %v", len(s.reached[key]), len(s.to), later)}
		case later != nil:
			return later
		}
		s.forget(key)
		if len(refused) == 0 {
			return nil
		}
		return &Failure{Reason: reasonAddress, Delivered: len(refused) < len(s.to), OneWarning: true, Detail: "some numbers are refused: " + strings.Join(refused, "; ")}
	})
}

func noSuchNumber(cms int) bool { return cms == 1 || cms == 28 || cms == 30 }

func (s *SMS) sendTo(m *modem, number, text string) error {
	s.reference++
	messages, err := pdus(number, text, s.parts, s.reference)
	if err != nil {
		return err
	}
	for _, p := range messages {
		if err := m.send(p); err != nil {
			return err
		}
	}
	return nil
}

func (s *SMS) remember(key, number string) {
	if _, ok := s.reached[key]; !ok {
		if len(s.order) == smsMemory {
			delete(s.reached, s.order[0])
			s.order = s.order[1:]
		}
		s.order = append(s.order, key)
	}
	s.reached[key] = append(s.reached[key], number)
}

func (s *SMS) forget(key string) {
	delete(s.reached, key)
	s.order = slices.DeleteFunc(s.order, func(k string) bool { return k == key })
}

// use opens the modem, lets f use it, and closes it.
func (s *SMS) use(ctx context.Context, f func(*modem) error) error {
	attempt, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	select {
	case s.modem <- struct{}{}:
		defer func() { <-s.modem }()
	case <-attempt.Done():
		return s.failure(ctx, attempt, attempt.Err())
	}
	if s.locked {
		return s.failure(ctx, attempt, errWrongPIN)
	}
	line, err := s.dial(attempt, s.connect)
	if err != nil {
		return s.failure(ctx, attempt, err)
	}
	m := newModem(attempt, line)
	defer m.close()
	if err := m.begin(s.pin); err != nil {
		s.locked = errors.Is(err, errWrongPIN)
		return s.failure(ctx, attempt, err)
	}
	return s.failure(ctx, attempt, f(m))
}

func (s *SMS) failure(ctx, attempt context.Context, err error) error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Failure](err); ok {
		f.Detail = "modem at " + s.connect + ": " + f.Detail
		return f
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case attempt.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		return &Failure{Reason: reasonTimeout, Detail: fmt.Sprintf("modem at %s: it does not answer: %v", s.connect, err)}
	}
	return &Failure{Reason: reasonModem, Detail: fmt.Sprintf("modem at %s: %v", s.connect, err)}
}

// Every is how often Keep looks at the modem.
func (s *SMS) Every() time.Duration { return smsEvery }

// Keep looks whether the modem is in a network.
func (s *SMS) Keep(ctx context.Context, _ func() []telemetry.Warning) error {
	return s.use(ctx, func(*modem) error { return nil })
}
