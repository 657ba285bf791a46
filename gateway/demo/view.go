package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

const (
	statusEvery      = time.Second
	plainStatusEvery = 10 * time.Second
	maxKnown         = 10_000 // warnings whose severity the view remembers
	minMessage       = 24     // cells of a message below which it has lines of its own
	deviceCells      = 12
	headCells        = 8 + 2 + 8 + 2 + 7 + 2 + deviceCells + 2
)

// ict is the time of Việt Nam, which has no summer time.
var ict = time.FixedZone("+07", 7*3600)

// Stats are the numbers of the status line, as the gateway knows them.
type Stats struct {
	ReadingsTotal  uint64   // on disk since the gateway started
	ActiveWarnings int      // not cleared
	LevelM         *float64 // newest water level of demo-kim-long; nil: none yet
	BoatsHeard     int      // vessels with a position in the last 15 s
}

// A View shows a person what happens, line by line, with a status line at the
// bottom. It is safe for concurrent use. As an io.Writer it takes log lines and
// keeps them apart from the status line.
type View struct {
	terminal  Terminal
	addresses Addresses
	stats     func() Stats
	devices   map[string]telemetry.Device

	mu       sync.Mutex
	out      io.Writer
	err      error                         // the first of out
	shown    bool                          // a status line stands at the bottom
	known    map[string]telemetry.Severity // of warnings that are not cleared
	last     Stats
	lastAt   time.Time
	rate     float64 // readings a second
	warnings uint64  // transitions shown
}

// NewView returns a view that writes to out. stats is asked about once a second.
func NewView(out io.Writer, terminal Terminal, addresses Addresses, stats func() Stats) (*View, error) {
	byID, err := registry()
	if err != nil {
		return nil, err
	}
	return &View{
		terminal: terminal, addresses: addresses, stats: stats, devices: byID,
		out: out, known: map[string]telemetry.Severity{},
	}, nil
}

// Run shows the banner, keeps the status line fresh until ctx ends, and leaves
// a last line. The error is that of the output.
func (v *View) Run(ctx context.Context) error {
	v.banner()
	every := plainStatusEvery
	if v.terminal.Live {
		every = statusEvery
	}
	v.mu.Lock()
	v.last, v.lastAt = v.stats(), time.Now()
	v.mu.Unlock()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return v.end()
		case at := <-tick.C:
			v.refresh(at)
		}
		if err := v.failure(); err != nil {
			return fmt.Errorf("show the demo: %w", err)
		}
	}
}

// Received shows one transition of a warning.
func (v *View) Received(w telemetry.Warning) {
	v.mu.Lock()
	defer v.mu.Unlock()
	lines := v.warningLines(&w, v.change(&w))
	v.warnings++
	v.above(strings.Join(lines, "\n") + "\n")
}

// Write shows log lines above the status line.
func (v *View) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	text := string(p)
	if !bytes.HasSuffix(p, []byte("\n")) {
		text += "\n"
	}
	v.above(text)
	return len(p), v.err
}

// above writes whole lines and puts the status line below them again.
func (v *View) above(text string) {
	status := ""
	if v.shown {
		text = clearLine + text
		status = v.statusLine()
	}
	v.write(text + status)
}

func (v *View) write(text string) {
	if _, err := io.WriteString(v.out, text); err != nil && v.err == nil {
		v.err = err
	}
}

func (v *View) failure() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

// change returns the word for what the transition does, and remembers the
// warning's severity.
func (v *View) change(w *telemetry.Warning) string {
	before, known := v.known[w.ID]
	if w.State == telemetry.Cleared {
		delete(v.known, w.ID)
		return "cleared"
	}
	if known || len(v.known) < maxKnown {
		v.known[w.ID] = w.Severity
	}
	switch {
	case w.State == telemetry.Acknowledged:
		return "taken"
	case w.State == telemetry.Shelved:
		return "shelved"
	case !known && w.N == 1:
		return "raised"
	case known && w.Severity > before:
		return "rises"
	case known && w.Severity < before:
		return "falls"
	}
	return "goes on" // raised before this view began
}

// warningLines lays a transition out: time, severity, change, device and the
// messages, Vietnamese first.
func (v *View) warningLines(w *telemetry.Warning, change string) []string {
	t := v.terminal
	name := w.Device
	if d, ok := v.devices[w.Device]; ok && d.Name != "" {
		name = d.Name
	}
	name = printable(name)
	// The device has its own column: a message that begins with it need not.
	vi := strings.TrimPrefix(printable(w.Message.VI), name+": ")
	en := strings.TrimPrefix(printable(w.Message.EN), name+": ")
	if vi == "" {
		vi, en = en, ""
	}
	severity := severityStyle(w.Severity)
	changeStyle := bold
	if w.State == telemetry.Cleared {
		severity, changeStyle = dim, green
	}
	head := w.At.In(ict).Format("15:04:05") + "  " +
		t.paint(severity, pad(strings.ToUpper(w.Severity.String()), 8)) + "  " +
		t.paint(changeStyle, pad(change, 7)) + "  " + pad(name, deviceCells) + "  "
	if !t.Live {
		if en != "" {
			vi += " / " + en
		}
		return []string{strings.TrimRight(head+vi, " ")}
	}
	return v.columns(head, max(headCells, headCells-deviceCells+cells(name)), vi, en)
}

// columns sets the messages beside the head, or under it where the terminal is
// narrow.
func (v *View) columns(head string, headWidth int, vi, en string) []string {
	t := v.terminal
	indent := headCells
	room := t.columns() - headWidth
	var lines []string
	if room < minMessage {
		lines = append(lines, strings.TrimRight(head, " "))
		indent = min(10, t.columns()/4)
		head = strings.Repeat(" ", indent)
		room = max(1, t.columns()-indent)
	}
	margin := strings.Repeat(" ", indent)
	for i, line := range wrap(vi, room) {
		if i > 0 {
			head = margin
		}
		lines = append(lines, head+line)
	}
	if en == "" {
		return lines
	}
	for _, line := range wrap(en, room) {
		lines = append(lines, margin+t.paint(dim, line))
	}
	return lines
}

// refresh asks for the numbers and shows them.
func (v *View) refresh(at time.Time) {
	now := v.stats()
	v.mu.Lock()
	defer v.mu.Unlock()
	if passed := at.Sub(v.lastAt).Seconds(); passed > 0 && now.ReadingsTotal >= v.last.ReadingsTotal {
		v.rate = float64(now.ReadingsTotal-v.last.ReadingsTotal) / passed
	}
	v.last, v.lastAt = now, at
	if v.terminal.Live {
		v.write(clearLine + v.statusLine())
		v.shown = true
		return
	}
	v.write(at.In(ict).Format("15:04:05") + "  " + v.plainStatus() + "\n")
}

// end takes the status line away and leaves the totals.
func (v *View) end() error {
	now := v.stats()
	v.mu.Lock()
	defer v.mu.Unlock()
	text := fmt.Sprintf("Stopped after %s readings and %s. The next start goes on from here.\n",
		thousands(now.ReadingsTotal), plural(v.warnings, "change of warnings", "changes of warnings"))
	if v.shown {
		text = clearLine + text
		v.shown = false
	}
	v.write(text)
	return v.err
}

// thousands writes 18402 as 18,402.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func plural(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}
