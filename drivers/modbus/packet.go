package modbus

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"haidang/gateway/telemetry"
)

// A Packet is what a modem sends of itself: to say who it is, or that it is
// there. One of its forms is set.
type Packet struct {
	Text    string `yaml:"text"`    // printable characters, as they are
	Hex     string `yaml:"hex"`     // bytes, with or without spaces
	Pattern string `yaml:"pattern"` // a regular expression (RE2) for the whole packet, a registration only
}

const maxPacketBytes = 128

func (p *Packet) empty() bool { return *p == Packet{} }

// bytes are those of a text or of hex.
func (p *Packet) bytes() ([]byte, error) {
	if p.Text != "" {
		return []byte(p.Text), nil
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(p.Hex), ""))
	if err != nil {
		return nil, fmt.Errorf("hex %q is not pairs of 0..9 and A..F", p.Hex)
	}
	return b, nil
}

func (p *Packet) validate(pattern bool) []telemetry.Fault {
	set := 0
	for _, form := range []string{p.Text, p.Hex, p.Pattern} {
		if form != "" {
			set++
		}
	}
	forms := "text or hex"
	if pattern {
		forms = "text, hex or pattern"
	}
	if set != 1 || p.Pattern != "" && !pattern {
		return []telemetry.Fault{telemetry.Faultf("", "a packet has one of %s", forms)}
	}
	if p.Pattern != "" {
		if _, err := regexp.Compile(p.Pattern); err != nil {
			return []telemetry.Fault{telemetry.Faultf("pattern", "pattern %q: %v", p.Pattern, err)}
		}
		return nil
	}
	b, err := p.bytes()
	switch {
	case err != nil:
		return []telemetry.Fault{telemetry.Faultf("hex", "%v", err)}
	case len(b) == 0 || len(b) > maxPacketBytes:
		return []telemetry.Fault{telemetry.Faultf("", "a packet of %d bytes, expected 1..%d", len(b), maxPacketBytes)}
	}
	return nil
}

// A matcher knows a registration packet.
type matcher struct {
	literal []byte
	pattern *regexp.Regexp
}

// newMatcher makes one of a packet without faults.
func newMatcher(p *Packet) matcher {
	if p.Pattern != "" {
		return matcher{pattern: regexp.MustCompile(`^(?:` + p.Pattern + `)$`)}
	}
	literal, _ := p.bytes() // validated
	return matcher{literal: literal}
}

// matches returns how many bytes of what arrived are known; 0 is no match. A
// literal may stand anywhere, because some modems send a greeting first; a
// pattern is for all that arrived but for spaces and line ends around it.
func (m matcher) matches(arrived []byte) int {
	if m.pattern != nil {
		trimmed := bytes.TrimSpace(arrived)
		if len(trimmed) > 0 && m.pattern.Match(trimmed) {
			return len(trimmed)
		}
		return 0
	}
	if len(m.literal) > 0 && bytes.Contains(arrived, m.literal) {
		return len(m.literal)
	}
	return 0
}
