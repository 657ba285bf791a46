//go:build linux

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"haidang/drivers/link/ptytest"

	"golang.org/x/sys/unix"
)

// A ptyModem is a GSM modem on a pseudo-terminal, by script: its SIM is locked, it
// is in no network at first, and the network is congested once.
type ptyModem struct {
	master *os.File

	mu       sync.Mutex
	unlocked bool
	pins     []string
	asked    int // for the network
	refused  bool
	texts    []string // of the parts, as the telephone joins them
	parts    int
}

func (m *ptyModem) serve() {
	var line []byte
	one := make([]byte, 1)
	for {
		_, err := m.master.Read(one)
		switch {
		case errors.Is(err, unix.EIO): // nobody has it open
			<-time.After(10 * time.Millisecond)
			line = nil
			continue
		case err != nil:
			return
		case one[0] != '\r' && one[0] != 0x1a:
			line = append(line, one[0])
			continue
		}
		if answer := m.answer(strings.Trim(string(line), "\x1b\n"), one[0] == 0x1a); answer != "" {
			_, _ = io.WriteString(m.master, answer)
		}
		line = nil
	}
}

func (m *ptyModem) answer(line string, message bool) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	final := func(text string) string { return "\r\n" + text + "\r\n" }
	switch {
	case message && !m.refused:
		m.refused = true
		return final("+CMS ERROR: 42")
	case message:
		m.take(line)
		return final(fmt.Sprintf("+CMGS: %d", m.parts)) + final("OK")
	case line == "":
		return ""
	case line == "AT+CPIN?" && !m.unlocked:
		return final("+CPIN: SIM PIN") + final("OK")
	case line == "AT+CPIN?":
		return final("+CPIN: READY") + final("OK")
	case strings.HasPrefix(line, "AT+CPIN="):
		m.pins = append(m.pins, line)
		m.unlocked = line == `AT+CPIN="1234"`
	case strings.HasSuffix(line, "REG?"):
		m.asked++
		state := map[bool]string{true: "2", false: "1"}[m.asked <= 3] // searching; then at home
		return final("+"+strings.Trim(line, "AT+?")+": 0,"+state) + final("OK")
	case strings.HasPrefix(line, "AT+CMGS="):
		return "\r\n> "
	}
	return final("OK")
}

// take reads a PDU with a header of concatenation and UCS-2 text (3GPP TS 23.040,
// 9.2.3.24.1).
func (m *ptyModem) take(text string) {
	b, err := hex.DecodeString(text)
	n := strings.Index(string(b), "\x05\x00\x03") // length, element and length of the header
	if err != nil || n < 0 || len(b) < n+6 {
		m.texts = append(m.texts, "not a part: "+text)
		return
	}
	m.parts++
	var units []uint16
	for i := n + 6; i+1 < len(b); i += 2 {
		units = append(units, uint16(b[i])<<8|uint16(b[i+1]))
	}
	m.texts = append(m.texts, string(utf16.Decode(units)))
}

// TestSMS: the gateway unlocks the SIM, waits for the network, sends what was
// refused again, and a long Vietnamese text comes in parts.
func TestSMS(t *testing.T) {
	t.Parallel()
	master, device := ptytest.Open(t)
	m := &ptyModem{master: master}
	go m.serve()
	g := prepare(t, fmt.Sprintf(`
ioc: [{name: chief, sms: {connect: "serial://%s?baud=115200", pin: "1234", to: ["+84905123456"]}}]
`, device))
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "the text has come", 30*time.Second, func() bool { return g.metric("haidang_ioc_delivered_total", `recipient="chief"`) == 1 })
	m.mu.Lock()
	defer m.mu.Unlock()
	text := strings.Join(m.texts, "")
	if !strings.HasPrefix(text, "[đặc biệt nghiêm trọng] Lũ: ") || !strings.Contains(text, "5 m, báo động III là 3.5 m") || m.parts != 2 || len(m.texts) != m.parts {
		t.Errorf("in %d parts: %q", m.parts, m.texts)
	}
	if len(m.pins) != 1 || !m.refused {
		t.Errorf("the PIN was entered %q; the network refused once: %v", m.pins, m.refused)
	}
	if n := g.metric("haidang_ioc_failed_total", `recipient="chief"`, `reason="modem"`); n < 2 {
		t.Errorf("no network and a refusal are counted %v times", n)
	}
	if out := g.must("recipients"); !strings.Contains(out, "well") {
		t.Errorf("haidang recipients:\n%s", out)
	}
}
