package ioc

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"haidang/gateway/telemetry"
)

// A telephone joins the short messages that a simulated modem sends.
type telephone struct {
	texts []string
	parts map[byte]map[byte]string
}

// A simModem is a modem with its SIM and its network, on the other end of a
// pipe. answers replaces its answer to a command; "" says nothing at all.
type simModem struct {
	pin       string // that unlocks the SIM; "": it is not locked
	echo      bool
	noise     string // said before each answer
	answers   map[string]string
	onMessage func(number string) string // the answer to a message; "": it is taken

	mu       sync.Mutex
	unlocked bool
	pins     int
	opened   int
	phones   map[string]*telephone
	faults   []string
}

func (m *simModem) dial(_ context.Context, _ string) (ModemLine, error) {
	ours, theirs := net.Pipe()
	m.mu.Lock()
	m.opened++
	m.mu.Unlock()
	go m.serve(theirs)
	return ours, nil
}

func (m *simModem) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	echo, expects := true, 0
	for {
		line, err := r.ReadString('\r')
		if err != nil {
			return
		}
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), "\x1b")
		if line == "" {
			continue
		}
		out := ""
		if echo || m.echo {
			out = line + "\r\n"
		}
		out += m.noise
		answer, changed := m.answers[line]
		name, value, _ := strings.Cut(line, "=")
		switch {
		case changed:
			if answer == "" {
				continue
			}
			out += "\r\n" + answer + "\r\n"
		case line == "ATE0":
			echo = false
			out += "\r\nOK\r\n"
		case line == "AT+CPIN?":
			m.mu.Lock()
			if m.pin == "" || m.unlocked {
				out += "\r\n+CPIN: READY\r\n\r\nOK\r\n"
			} else {
				out += "\r\n+CPIN: SIM PIN\r\n\r\nOK\r\n"
			}
			m.mu.Unlock()
		case name == "AT+CPIN":
			m.mu.Lock()
			m.pins++
			m.unlocked = value == `"`+m.pin+`"`
			if m.unlocked {
				out += "\r\nOK\r\n"
			} else {
				out += "\r\n+CME ERROR: 16\r\n"
			}
			m.mu.Unlock()
		case strings.HasSuffix(name, "REG?"):
			out += "\r\n+" + strings.Trim(name, "AT+?") + ": 0,1\r\n\r\nOK\r\n"
		case name == "AT+CMGS":
			expects, _ = strconv.Atoi(value)
			if _, err := io.WriteString(conn, out+"\r\n> "); err != nil {
				return
			}
			text, err := r.ReadString('\x1a')
			if err != nil {
				return
			}
			answer := m.take(strings.TrimSuffix(text, "\x1a"), expects)
			if answer == "hang up" {
				return
			}
			out = m.noise + "\r\n" + answer + "\r\n"
		default:
			out += "\r\nOK\r\n"
		}
		if _, err := io.WriteString(conn, out); err != nil {
			return
		}
	}
}

// take decodes a PDU on its own, by 3GPP TS 23.040.
func (m *simModem) take(text string, expects int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	fault := func(format string, args ...any) string {
		m.faults = append(m.faults, fmt.Sprintf(format, args...))
		return "+CMS ERROR: 304"
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) < 12 || b[0] != 0 || len(b)-1 != expects {
		return fault("%q is not a PDU of %d octets", text, expects)
	}
	b = b[1:]
	first, digits, kind := b[0], int(b[2]), b[3]
	b = b[4:]
	number := ""
	if kind == internat {
		number = "+"
	}
	for i := range digits {
		number += strconv.Itoa(int(b[i/2] >> (4 * (i % 2)) & 0xF))
	}
	b = b[(digits+1)/2:]
	if b[0] != 0 || b[1] != ucs2 || b[2] != aDay || int(b[3]) != len(b)-4 || b[3] > 140 {
		return fault("protocol %d, coding %d, validity %d, %d octets of text, which are %d", b[0], b[1], b[2], b[3], len(b)-4)
	}
	if m.onMessage != nil {
		if answer := m.onMessage(number); answer != "" {
			return answer
		}
	}
	b = b[4:]
	p := m.phones[number]
	if p == nil {
		p = &telephone{parts: map[byte]map[byte]string{}}
		if m.phones == nil {
			m.phones = map[string]*telephone{}
		}
		m.phones[number] = p
	}
	decode := func(b []byte) string {
		var units []uint16
		for i := 0; i+1 < len(b); i += 2 {
			units = append(units, uint16(b[i])<<8|uint16(b[i+1]))
		}
		return string(utf16.Decode(units))
	}
	if first&hasHeader == 0 {
		p.texts = append(p.texts, decode(b))
		return "+CMGS: 1\r\n\r\nOK"
	}
	if b[0] != 5 || b[1] != 0 || b[2] != 3 || b[5] < 1 || b[5] > b[4] {
		return fault("header % x", b[:6])
	}
	reference, of, i := b[3], b[4], b[5]
	if p.parts[reference] == nil {
		p.parts[reference] = map[byte]string{}
	}
	p.parts[reference][i] = decode(b[6:])
	if len(p.parts[reference]) == int(of) {
		whole := ""
		for i := range of {
			whole += p.parts[reference][i+1]
		}
		p.texts = append(p.texts, whole)
		delete(p.parts, reference)
	}
	return "+CMGS: 1\r\n\r\nOK"
}

func (m *simModem) got(number string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.phones[number]; p != nil {
		return slices.Clone(p.texts)
	}
	return nil
}

func smsOf(m *simModem) *SMS {
	return NewSMS(SMSConfig{Connect: "serial:///dev/ttyUSB2", To: []string{"+84 905.123.456", "112"}, Parts: 3}, bulletins(), m.dial)
}

func TestShortMessages(t *testing.T) {
	long := strings.Repeat("Mực nước sông Hương tại Kim Long lên nhanh 🌊 ", 20)
	for _, c := range []struct {
		name, text string
		check      func(got string) bool
	}{
		{"one part", strings.Repeat("ữ", 70), func(got string) bool { return got == strings.Repeat("ữ", 70) }},
		{"two parts", strings.Repeat("ữ", 71), func(got string) bool { return got == strings.Repeat("ữ", 71) }},
		{"pairs of units are not split", "x" + strings.Repeat("🌊", 90), func(got string) bool { return got == "x"+strings.Repeat("🌊", 90) }},
		{"too long", long, func(got string) bool {
			return strings.HasSuffix(got, "…") && strings.HasPrefix(long, strings.TrimSuffix(got, "…")) && len(utf16.Encode([]rune(got))) > 180
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &simModem{noise: "\r\n^RSSI: 17\r\n+CMTI: \"SM\",3\r\n"}
			if err := smsOf(m).say(t.Context(), "k", c.text); err != nil {
				t.Fatal(err)
			}
			for _, number := range []string{"+84905123456", "112"} {
				if got := m.got(number); len(got) != 1 || !c.check(got[0]) {
					t.Errorf("%s got %q", number, got)
				}
			}
			if len(m.faults) > 0 {
				t.Error(m.faults)
			}
		})
	}
}

// The PDU was written by hand after 3GPP TS 23.040: to +84905123456, "Lũ".
func TestPDU(t *testing.T) {
	list, err := pdus("+84905123456", "Lũ", 1, 9)
	if err != nil || len(list) != 1 || list[0].text != "001100"+"0B91"+"4809153254F6"+"0008A7"+"04"+"004C0169" || list[0].bytes != 18 {
		t.Errorf("%+v %v", list, err)
	}
}

func TestModemTroubles(t *testing.T) {
	w := flooded("a", 1, telemetry.Severe)
	for _, c := range []struct {
		name   string
		modem  *simModem
		reason string
		says   string
	}{
		{"silent", &simModem{answers: map[string]string{"AT": ""}}, reasonTimeout, "does not answer AT"},
		{"no SIM", &simModem{answers: map[string]string{"AT+CPIN?": "+CME ERROR: 10"}}, reasonModem, "no SIM card"},
		{"PUK", &simModem{answers: map[string]string{"AT+CPIN?": "+CPIN: SIM PUK\r\n\r\nOK"}}, reasonModem, "SIM PUK"},
		{"no PIN", &simModem{pin: "1234"}, reasonModem, "has none"},
		{"no network", &simModem{answers: map[string]string{"AT+CREG?": "+CREG: 0,2\r\n\r\nOK", "AT+CGREG?": "ERROR", "AT+CEREG?": "+CEREG: 0,0\r\n\r\nOK"}}, reasonModem, "in no network (CREG 0,2"},
		{"congested", &simModem{onMessage: func(string) string { return "+CMS ERROR: 42" }}, reasonModem, "the network is congested"},
		{"no answer to the message", &simModem{onMessage: func(string) string { return "" }, answers: map[string]string{"AT+CMGF=0": ""}}, reasonTimeout, "AT+CMGF"},
		{"carrier lost", &simModem{onMessage: func(string) string { return "NO CARRIER" }}, reasonModem, "NO CARRIER"},
		{"hangs up", &simModem{onMessage: func(string) string { return "hang up" }}, reasonModem, "modem at serial"},
		{"wrong speed", &simModem{noise: strings.Repeat("\x80\xff", modemLine)}, reasonModem, "speed of the line"},
		{"OK and nothing sent", &simModem{onMessage: func(string) string { return "OK" }}, reasonModem, "nothing was sent"},
		{"all numbers are wrong", &simModem{onMessage: func(string) string { return "+CMS ERROR: 28" }}, reasonAddress, "no such subscriber"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := failureOf(t, smsOf(c.modem).Deliver(t.Context(), w))
				if f.Reason != c.reason || !strings.Contains(f.Detail, c.says) || f.Delivered {
					t.Errorf("%s: %s; want %s: %s", f.Reason, f.Detail, c.reason, c.says)
				}
			})
		})
	}
}

// A PIN that is wrong is tried once: the third time locks the SIM.
func TestWrongPINIsTriedOnce(t *testing.T) {
	m := &simModem{pin: "1234"}
	s := smsOf(m)
	s.pin = "9999"
	for range 5 {
		f := failureOf(t, s.Deliver(t.Context(), flooded("a", 1, telemetry.Severe)))
		if !strings.Contains(f.Detail, "third wrong PIN") || strings.Contains(f.Detail, "9999") {
			t.Error(f.Detail)
		}
	}
	if m.pins != 1 {
		t.Errorf("%d PINs were tried", m.pins)
	}
	m = &simModem{pin: "1234"}
	s = smsOf(m)
	s.pin = "1234"
	if err := s.Keep(t.Context(), nil); err != nil || m.pins != 1 {
		t.Errorf("%v after %d PINs", err, m.pins)
	}
}

// A number that fails does not keep the others waiting, and those that have the
// message are not sent it again.
func TestEachNumberGetsItOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		tries := 0
		m := &simModem{onMessage: func(number string) string {
			mu.Lock()
			defer mu.Unlock()
			if number != "+84905123456" {
				return ""
			}
			tries++
			return []string{"+CMS ERROR: 500", "hang up", ""}[tries-1]
		}}
		recipient := NewRecipient("sms", smsOf(m), Options{Logger: slog.New(slog.DiscardHandler)})
		if err := recipient.Sender(All).Accept(t.Context(), transitions(flooded("a", 1, telemetry.Severe))); err != nil {
			t.Fatal(err)
		}
		want := "[nghiêm trọng] Lũ: Mực nước Kim Long 3,62 m. 09:31 27/10/2025"
		if a, b := m.got("+84905123456"), m.got("112"); len(a) != 1 || len(b) != 1 || a[0] != want {
			t.Errorf("%q and %q, want %q once", a, b, want)
		}
		if s := recipient.to.(*SMS); len(s.reached)+len(s.order) != 0 {
			t.Errorf("%v is remembered", s.reached)
		}
	})
}

func TestSMSIsGivenUpWhenTheGatewayStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &simModem{answers: map[string]string{"ATE0": ""}}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- smsOf(m).Deliver(ctx, flooded("a", 1, telemetry.Severe)) }()
		synctest.Wait()
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestSMSOfADrill(t *testing.T) {
	w := flooded("a", 1, telemetry.Severe)
	w.Exercise = true
	s := smsOf(&simModem{})
	s.language = "both"
	b, _ := s.texts.from.Chronicle.Of(w)
	if text := s.text(&b); !strings.HasPrefix(text, "DIỄN TẬP: ") || !strings.Contains(text, "\nEXERCISE: ") {
		t.Errorf("%q", text)
	}
}

func FuzzModem(f *testing.F) {
	f.Add([]byte("\r\nOK\r\n\r\nOK\r\n\r\nOK\r\n+CPIN: READY\r\nOK\r\n+CREG: 0,1\r\nOK\r\nOK\r\n> \r\n+CMGS: 1\r\nOK\r\n"))
	f.Add([]byte("\r\n+CME ERROR: 10\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		m := newModem(t.Context(), &recorded{said: said})
		defer m.close()
		if m.begin("1234") == nil {
			_ = m.send(pdu{text: "00", bytes: 1})
		}
	})
}

// recorded is a line on which everything has been said.
type recorded struct{ said []byte }

func (r *recorded) Read(p []byte) (int, error) {
	if len(r.said) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.said)
	r.said = r.said[n:]
	return n, nil
}
func (*recorded) Write(p []byte) (int, error)      { return len(p), nil }
func (*recorded) Close() error                     { return nil }
func (*recorded) SetReadDeadline(time.Time) error  { return nil }
func (*recorded) SetWriteDeadline(time.Time) error { return nil }

func FuzzPDU(f *testing.F) {
	f.Add("Lũ trên sông Hương 🌊", 3)
	f.Fuzz(func(t *testing.T, text string, parts int) {
		parts = 1 + int(uint(parts)%maxParts)
		m := &simModem{}
		list, err := pdus("+84905123456", text, parts, 1)
		if err != nil || len(list) > parts+1 {
			t.Fatalf("%d messages, %v", len(list), err)
		}
		for _, p := range list {
			m.take(p.text, p.bytes)
		}
		whole := strings.ToValidUTF8(text, "\ufffd")
		got := m.got("+84905123456")
		if len(m.faults) > 0 || len(got) != 1 || got[0] != whole && !strings.HasSuffix(got[0], "…") {
			t.Errorf("%q arrives as %q %v", text, got, m.faults)
		}
	})
}
