package ioc

import (
	"encoding/json"
	"fmt"
	"strings"

	"haidang/gateway/telemetry"
)

// Preview returns what the recipient would be sent for a transition, for people
// to read, and false when it would be sent nothing.
func (r *Recipient) Preview(w telemetry.Warning) (text string, sent bool) {
	if !r.wants(&w) {
		return "", false
	}
	if p, ok := r.to.(interface {
		Preview(telemetry.Warning) string
	}); ok {
		return p.Preview(w), true
	}
	if a, ok := r.to.(*Alertmanager); ok {
		return indented([]alert{a.alert(&w, w.At)}), true
	}
	return indented(&w), true
}

// Name is the recipient's name.
func (r *Recipient) Name() string { return r.name }

// Via is the protocol by which the recipient is reached.
func (r *Recipient) Via() string { return r.via }

func indented(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(text) + "\n"
}

// Preview returns the CAP message of a transition.
func (r *CAP) Preview(w telemetry.Warning) string {
	b, is := r.from.Chronicle.Of(w)
	if !is {
		return ""
	}
	text, err := r.from.Composer.Message(&b).Encode()
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Preview returns subject and parts of a mail.
func (s *SMTP) Preview(w telemetry.Warning) string {
	b := s.texts.from.Chronicle.Now(w)
	vi, en := s.write(&b, true), s.write(&b, false)
	return "Subject: " + vi.Title + "\n\n" + vi.Body + "\n\n--\n" + en.Title + "\n\n" + en.Body + "\n"
}

// Preview returns a short message, and how many parts it takes.
func (s *SMS) Preview(w telemetry.Warning) string {
	b := s.texts.from.Chronicle.Now(w)
	text := s.text(&b)
	parts, err := pdus(s.to[0], text, s.parts, 0)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s\n(%d characters in %d of at most %d parts)\n", text, len([]rune(text)), len(parts), s.parts)
}

// Preview says how the siren is switched.
func (s *Siren) Preview(w telemetry.Warning) string {
	if !s.claims(&w) {
		return "off\n"
	}
	return strings.TrimSpace(fmt.Sprintf("on: %v to %s of unit %s on %s, for %s at most", s.cfg.number(true), s.cfg.Setting, s.cfg.Unit, s.cfg.Line, s.cfg.Longest)) + "\n"
}
