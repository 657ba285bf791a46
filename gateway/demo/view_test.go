package demo

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

var update = flag.Bool("update", false, "write the golden files of the view")

// story is what a gateway tells in a minute: the view's input.
func story(at time.Time) []telemetry.Warning {
	w := func(after time.Duration, id string, n int, device string, state telemetry.State, s telemetry.Severity, vi, en string) telemetry.Warning {
		return telemetry.Warning{
			ID: id, N: n, Device: device, State: state, Severity: s, At: at.Add(after),
			Message: telemetry.Text{VI: vi, EN: en},
		}
	}
	flood := func(level string) (string, string) {
		return "Kim Long: mực nước " + level + " m (báo động 1/2/3.5)", "Kim Long: water level " + level + " m (alarm 1/2/3.5)"
	}
	vi1, en1 := flood("1.02")
	vi2, en2 := flood("2.05")
	vi3, en3 := flood("3.61")
	vi4, en4 := flood("3.41")
	vi5, en5 := flood("0.94")
	return []telemetry.Warning{
		w(1*time.Second, "kl", 1, kimLong, telemetry.Active, telemetry.Moderate, vi1, en1),
		w(2*time.Second, "kl", 2, kimLong, telemetry.Active, telemetry.Severe, vi2, en2),
		w(3*time.Second, "kl", 3, kimLong, telemetry.Active, telemetry.Extreme, vi3, en3),
		w(4*time.Second, "ship", 1, silentBoat, telemetry.Active, telemetry.Severe,
			"TTH 99907 TS: mất tín hiệu AIS quá 15 giây (AIS không phải VMS)", "TTH 99907 TS: no AIS for more than 15 s (AIS is not VMS)"),
		w(5*time.Second, "kl", 4, kimLong, telemetry.Acknowledged, telemetry.Extreme, vi3, en3),
		w(6*time.Second, "kl", 5, kimLong, telemetry.Acknowledged, telemetry.Severe, vi4, en4),
		w(7*time.Second, "old", 4, "someone-elses-well", telemetry.Active, telemetry.Minor, "", "a station\x1b[2J that is not ours"),
		w(8*time.Second, "kl", 6, kimLong, telemetry.Cleared, telemetry.Moderate, vi5, en5),
	}
}

// show plays the story into a view for 21 seconds and returns what it wrote.
func show(t *testing.T, terminal Terminal) string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		start := time.Date(2025, 10, 27, 20, 0, 0, 0, ict)
		var mu sync.Mutex
		level := 0.6
		var total uint64
		stats := func() Stats {
			mu.Lock()
			defer mu.Unlock()
			s := Stats{ReadingsTotal: total, ActiveWarnings: 2, BoatsHeard: 29}
			if total > 0 {
				s.LevelM = new(float64)
				*s.LevelM = level
			}
			return s
		}
		view, err := NewView(&out, terminal, DefaultAddresses(), stats)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- view.Run(ctx) }()
		// Half a second off the view's own ticks, so that the order is certain.
		time.Sleep(500 * time.Millisecond)
		warnings := story(start)
		for i := range 20 {
			mu.Lock()
			total += 1234
			level += 0.25
			mu.Unlock()
			if i < len(warnings) {
				view.Received(warnings[i])
			}
			if i == 10 {
				view.Write([]byte("level=WARN msg=\"a log line\"\n"))
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return out.String()
}

func TestViewGolden(t *testing.T) {
	width := func(n int) func() int { return func() int { return n } }
	for _, c := range []struct {
		file     string
		terminal Terminal
	}{
		{"plain.golden", Terminal{}},
		{"tty80.golden", Terminal{Live: true, Columns: width(80)}},
		{"tty80colour.golden", Terminal{Live: true, Colour: true, Columns: width(80)}},
		{"tty40.golden", Terminal{Live: true, Columns: width(40)}},
		{"tty120.golden", Terminal{Live: true, Columns: width(120)}},
	} {
		t.Run(c.file, func(t *testing.T) {
			got := readable(show(t, c.terminal))
			path := filepath.Join("testdata", c.file)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
			for i := range min(len(gotLines), len(wantLines)) {
				if gotLines[i] != wantLines[i] {
					t.Fatalf("%s:%d: the view shows\n%s\nand not\n%s", path, i+1, gotLines[i], wantLines[i])
				}
			}
			if len(gotLines) != len(wantLines) {
				t.Errorf("the view shows %d lines, %s has %d", len(gotLines), path, len(wantLines))
			}
		})
	}
}

// readable writes escape sequences so that a golden file can be read and
// reviewed: each refresh of the status line is a line of its own.
func readable(text string) string {
	text = strings.ReplaceAll(text, clearLine, "<clear>\n")
	return strings.ReplaceAll(text, "\x1b", "<esc>")
}

// TestViewKeepsToTheWidth: on a terminal nothing but commands to copy is wider
// than the terminal.
func TestViewKeepsToTheWidth(t *testing.T) {
	for _, columns := range []int{30, 40, 60, 66, 67, 80, 100, 200} {
		text := show(t, Terminal{Live: true, Columns: func() int { return columns }})
		_, text, _ = strings.Cut(text, "Ctrl-C\n") // below the banner
		for _, line := range strings.FieldsFunc(text, func(c rune) bool { return c == '\n' || c == '\r' }) {
			line = strings.TrimPrefix(line, "\x1b[K")
			if strings.HasPrefix(line, "Stopped") || strings.HasPrefix(line, "level=WARN") || !strings.Contains(line, " ") {
				continue
			}
			if n := cells(line); n > columns && n > headCells+6 { // the head of a foreign device may stand out
				t.Errorf("at %d columns a line takes %d: %q", columns, n, line)
			}
		}
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestViewTellsThatItCannotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view, err := NewView(brokenPipe{}, Terminal{}, DefaultAddresses(), func() Stats { return Stats{} })
		if err != nil {
			t.Fatal(err)
		}
		if err := view.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "broken pipe") {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestCells(t *testing.T) {
	for text, want := range map[string]int{
		"":                         0,
		"Kim Long":                 8,
		"Phú Ốc":                   6,
		"Phu\u0301 O\u0302\u0301c": 6, // the same, decomposed
		"[██|·]":                   6,
		"mực nước":                 8,
	} {
		if got := cells(text); got != want {
			t.Errorf("%q takes %d cells, want %d", text, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 10, []string{""}},
		{"ra khỏi ngư trường", 20, []string{"ra khỏi ngư trường"}},
		{"ra khỏi ngư trường", 11, []string{"ra khỏi ngư", "trường"}},
		{"một-từ-rất-dài ngắn", 5, []string{"một-từ-rất-dài", "ngắn"}},
	} {
		if got := wrap(c.text, c.width); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("wrap(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

func TestTerminalOfAFileIsPlain(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got := TerminalOf(file); got.Live || got.Colour {
		t.Errorf("a file is no terminal: %+v", got)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}
