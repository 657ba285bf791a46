package ioc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A ModemLine is an open line of bytes to a modem.
type ModemLine interface {
	io.ReadWriteCloser
	// The deadlines bound reads and writes, also those under way; past them they
	// fail with an error for which errors.Is(err, os.ErrDeadlineExceeded).
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Times of a modem.
const (
	modemAnswer  = 5 * time.Second  // to a command
	modemNetwork = 60 * time.Second // to a message: the network may take that long (3GPP TS 27.005, 3.5.1)
	modemLine    = 1 << 10          // longest line of an answer
)

// A modem speaks AT commands (3GPP TS 27.005 and 27.007, ITU-T V.250) over a
// line. It is used by one goroutine.
type modem struct {
	line ModemLine
	rest []byte // read and not used yet
	ctx  context.Context
	stop func() bool
}

// An atError is a final result code that is not OK.
type atError struct {
	command string
	result  string // ERROR, +CME ERROR: 10, +CMS ERROR: 38
}

// Error names the command and the answer.
func (e *atError) Error() string {
	text := fmt.Sprintf("%s: the modem answers %s", e.command, e.result)
	if why := meaning(e.result); why != "" {
		text += " (" + why + ")"
	}
	return text
}

// cms returns the number of a +CMS ERROR, or -1.
func (e *atError) cms() int {
	n, err := strconv.Atoi(strings.TrimPrefix(e.result, "+CMS ERROR: "))
	if err != nil {
		return -1
	}
	return n
}

// meaning says what the commonest numbers mean (27.007, 9.2; 27.005, 3.2.5;
// 24.011, E.2).
func meaning(result string) string {
	return map[string]string{
		"+CME ERROR: 10": "no SIM card", "+CME ERROR: 11": "the SIM asks for its PIN", "+CME ERROR: 12": "the SIM asks for its PUK",
		"+CME ERROR: 13": "the SIM has failed", "+CME ERROR: 16": "wrong PIN",
		"+CMS ERROR: 1": "no such number", "+CMS ERROR: 8": "barred by the operator", "+CMS ERROR: 10": "barred", "+CMS ERROR: 21": "rejected",
		"+CMS ERROR: 28": "no such subscriber", "+CMS ERROR: 30": "no such subscriber", "+CMS ERROR: 38": "the network is out of order", "+CMS ERROR: 42": "the network is congested",
		"+CMS ERROR: 69": "not in the subscription", "+CMS ERROR: 310": "no SIM card", "+CMS ERROR: 311": "the SIM asks for its PIN",
		"+CMS ERROR: 331": "no network", "+CMS ERROR: 332": "the network does not answer", "+CMS ERROR: 500": "unknown error",
	}[result]
}

// errWrongPIN ends attempts: the third wrong one locks the SIM.
var errWrongPIN = errors.New("the SIM refuses the PIN of the configuration; it is not tried again until the gateway is restarted, because the third wrong PIN locks the SIM")

func newModem(ctx context.Context, line ModemLine) *modem {
	m := &modem{line: line, ctx: ctx}
	m.stop = context.AfterFunc(ctx, func() { _ = m.deadline(time.Unix(1, 0)) }) // ends what waits
	return m
}

func (m *modem) close() {
	m.stop()
	_ = m.line.Close() // nothing is to be lost
}

// begin brings a modem in whatever state into one in which it takes messages.
func (m *modem) begin(pin string) error {
	// ESC ends the input of a message that somebody left half done.
	if err := m.write("\x1b\r"); err != nil {
		return err
	}
	var err error
	for range 3 { // the first ones can be lost while it finds the speed of the line
		if _, err = m.ask("AT", time.Second); err == nil {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) && !isResult(err) {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("the modem does not answer AT: %w", err)
	}
	for _, command := range []string{"ATE0", "AT+CMEE=1"} {
		if _, err := m.ask(command, modemAnswer); err != nil {
			return err
		}
	}
	if err := m.unlock(pin); err != nil {
		return err
	}
	if err := m.registered(); err != nil {
		return err
	}
	_, err = m.ask("AT+CMGF=0", modemAnswer)
	return err
}

func isResult(err error) bool {
	var result *atError
	return errors.As(err, &result)
}

// unlock enters the PIN where the SIM asks for it.
func (m *modem) unlock(pin string) error {
	lines, err := m.ask("AT+CPIN?", modemAnswer)
	if err != nil {
		return err
	}
	state := field(lines, "+CPIN:")
	switch {
	case state == "READY":
		return nil
	case state != "SIM PIN":
		return fmt.Errorf("the SIM asks for %q; put it into a telephone and unlock it", state)
	case pin == "":
		return errors.New("the SIM asks for its PIN, and the configuration has none")
	}
	if _, err := m.ask(`AT+CPIN="`+pin+`"`, modemAnswer); err != nil {
		if isResult(err) {
			return errWrongPIN
		}
		return errors.New("the modem does not answer to the PIN") // without the command, which holds it
	}
	return nil
}

// registered asks whether the modem is in a network: 2G and 3G, packet service,
// or 4G (27.007, 7.2, 10.1.20 and 10.1.22); 1 is at home, 5 roaming.
func (m *modem) registered() error {
	var said []string
	for _, network := range []string{"CREG", "CGREG", "CEREG"} {
		lines, err := m.ask("AT+"+network+"?", modemAnswer)
		if err != nil && !isResult(err) {
			return err
		}
		state := field(lines, "+"+network+":")
		if parts := strings.Split(state, ","); len(parts) > 1 && (parts[1] == "1" || parts[1] == "5") {
			return nil
		}
		said = append(said, network+" "+state)
	}
	return fmt.Errorf("the modem is in no network (%s); look at aerial, SIM and coverage", strings.Join(said, ", "))
}

// send sends one message. It returns nil when the network has taken it.
func (m *modem) send(p pdu) error {
	command := "AT+CMGS=" + strconv.Itoa(p.bytes)
	if err := m.write(command + "\r"); err != nil {
		return err
	}
	if err := m.prompt(command); err != nil {
		return err
	}
	if err := m.write(p.text + "\x1a"); err != nil {
		return err
	}
	lines, err := m.result("AT+CMGS", modemNetwork)
	if err != nil {
		return err
	}
	if field(lines, "+CMGS:") == "" {
		return errors.New("AT+CMGS: the modem answers OK without a reference: nothing was sent")
	}
	return nil
}

// ask gives a command and returns the lines of its answer.
func (m *modem) ask(command string, patience time.Duration) ([]string, error) {
	if err := m.write(command + "\r"); err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(command, "=")
	return m.result(name, patience)
}

func (m *modem) write(text string) error {
	if err := m.bound(modemAnswer); err != nil {
		return err
	}
	if _, err := io.WriteString(m.line, text); err != nil {
		return fmt.Errorf("write to the modem: %w", err)
	}
	return nil
}

// bound sets the time for what comes next.
func (m *modem) bound(patience time.Duration) error {
	if err := m.deadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("set the modem's deadline: %w", err)
	}
	return context.Cause(m.ctx) // it may have ended before the deadline was set
}

func (m *modem) deadline(at time.Time) error {
	return errors.Join(m.line.SetReadDeadline(at), m.line.SetWriteDeadline(at))
}

// result reads to the final result code.
func (m *modem) result(command string, patience time.Duration) (lines []string, err error) {
	if err := m.bound(patience); err != nil {
		return nil, err
	}
	for len(lines) < 100 {
		line, _, err := m.read(false)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", command, err)
		}
		switch {
		case line == "OK":
			return lines, nil
		case line == "ERROR", line == "NO CARRIER", strings.HasPrefix(line, "+CME ERROR:"), strings.HasPrefix(line, "+CMS ERROR:"):
			return nil, &atError{command: command, result: line}
		}
		lines = append(lines, line) // of the answer, an echo, or something unasked: who asked looks for his own
	}
	return nil, fmt.Errorf("%s: the modem does not come to an end", command)
}

// prompt waits for "> ".
func (m *modem) prompt(command string) error {
	if err := m.bound(modemAnswer); err != nil {
		return err
	}
	for range 100 {
		line, prompt, err := m.read(true)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", command, err)
		case prompt:
			return nil
		case line == "ERROR", strings.HasPrefix(line, "+CME ERROR:"), strings.HasPrefix(line, "+CMS ERROR:"):
			return &atError{command: command, result: line}
		}
	}
	return fmt.Errorf("%s: the modem does not ask for the message", command)
}

// read returns the next line that is not empty; or that a prompt has come, where
// one is looked for: it has no end of line.
func (m *modem) read(lookForPrompt bool) (line string, prompt bool, err error) {
	for {
		m.rest = bytes.TrimLeft(m.rest, "\r\n\x00")
		if lookForPrompt && bytes.HasPrefix(m.rest, []byte(">")) {
			m.rest = bytes.TrimPrefix(m.rest[1:], []byte(" "))
			return "", true, nil
		}
		if end := bytes.IndexAny(m.rest, "\r\n"); end > 0 {
			line = strings.TrimSpace(string(m.rest[:end]))
			m.rest = m.rest[end:]
			if line != "" {
				return line, false, nil
			}
			continue
		}
		if len(m.rest) > modemLine {
			return "", false, fmt.Errorf("a line of the modem is longer than %d bytes; is the speed of the line right?", modemLine)
		}
		buffer := make([]byte, 256)
		n, err := m.line.Read(buffer)
		m.rest = append(m.rest, buffer[:n]...)
		if n == 0 && err != nil {
			if ended := context.Cause(m.ctx); ended != nil {
				return "", false, ended
			}
			return "", false, err
		}
	}
}

// field returns what follows a prefix in the lines of an answer.
func field(lines []string, prefix string) string {
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// validPIN reports whether a PIN is one: it stands in a command.
func validPIN(pin string) bool { return regexp.MustCompile(`^[0-9]{4,8}$`).MatchString(pin) }
