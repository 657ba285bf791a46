package serial

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestMain fails the run when a goroutine outlives the tests.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		os.Exit(code) // fuzzing keeps a goroutine for signals
	}
	deadline := time.After(5 * time.Second)
	for code == 0 && runtime.NumGoroutine() > before {
		select {
		case <-deadline:
			stacks := make([]byte, 1<<16)
			fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", stacks[:runtime.Stack(stacks, true)])
			code = 1
		case <-time.After(10 * time.Millisecond):
		}
	}
	os.Exit(code)
}

// A shelf is an intake that keeps what it is given.
type shelf struct {
	mu       sync.Mutex
	readings []telemetry.Reading
	letters  []telemetry.DeadLetter
	news     chan struct{}
}

func newShelf() *shelf { return &shelf{news: make(chan struct{}, 1)} }

func (s *shelf) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

func (s *shelf) Accept(_ string, readings []telemetry.Reading, done func(error)) {
	s.mu.Lock()
	s.readings = append(s.readings, readings...)
	s.mu.Unlock()
	if done != nil {
		done(nil)
	}
	s.tell()
}

func (s *shelf) SetAside(letter telemetry.DeadLetter, done func(error)) {
	s.mu.Lock()
	s.letters = append(s.letters, letter)
	s.mu.Unlock()
	if done != nil {
		done(nil)
	}
	s.tell()
}

// lines shows the readings, one a line.
func (s *shelf) lines() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for i := range s.readings {
		out = append(out, show(&s.readings[i]))
	}
	return strings.Join(out, "\n")
}

// waitFor waits until a line of the shelf contains the text.
func (s *shelf) waitFor(t testing.TB, text string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !strings.Contains(s.lines(), text) {
		select {
		case <-s.news:
		case <-deadline:
			t.Fatalf("no %q within 10 s in\n%s", text, s.lines())
		}
	}
}

// show writes a reading as in: tt-hue weather temperature_c=16 wind_speed_ms=4
func show(r *telemetry.Reading) string {
	out := r.Device + " " + r.Kind
	if !r.Time.IsZero() {
		out += " at " + r.Time.UTC().Format(time.RFC3339)
	}
	var values []string
	for _, v := range r.Values {
		text := fmt.Sprintf("%s=%v", v.Name, v.Number)
		if v.Text != "" {
			text = fmt.Sprintf("%s=%q", v.Name, v.Text)
		}
		if v.Quality != telemetry.Good {
			text += "(" + v.Quality.String() + ")"
		}
		values = append(values, text)
	}
	sort.Strings(values)
	return strings.TrimSpace(out + " " + strings.Join(values, " "))
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("HAIDANG_TESTDATA")
	if dir == "" {
		t.Skip("HAIDANG_TESTDATA is not set: it names the folder of recordings")
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
