package modbus

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// A shelf is an intake that keeps what it is given and when.
type shelf struct {
	mu       sync.Mutex
	readings []telemetry.Reading
	at       []time.Time
	news     chan struct{}
}

func newShelf() *shelf { return &shelf{news: make(chan struct{}, 1)} }

func (s *shelf) Accept(source string, readings []telemetry.Reading, done func(error)) {
	s.mu.Lock()
	for _, r := range readings {
		s.readings = append(s.readings, r)
		s.at = append(s.at, time.Now())
	}
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
	if done != nil {
		go done(nil)
	}
}

func (s *shelf) SetAside(telemetry.DeadLetter, func(error)) { panic("nothing is set aside by modbus") }

func (s *shelf) all() []telemetry.Reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.readings)
}

// of returns the readings of a device and kind.
func (s *shelf) of(device, kind string) []telemetry.Reading {
	return slices.DeleteFunc(s.all(), func(r telemetry.Reading) bool { return r.Device != device || r.Kind != kind })
}

// links tells the link readings of a device as a row of 1 and 0.
func (s *shelf) links(device string) string {
	row := ""
	for _, r := range s.of(device, telemetry.KindLink) {
		up, _ := r.Number("up")
		row += fmt.Sprint(up)
	}
	return row
}

// until waits for a condition of the shelf.
func (s *shelf) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for !holds() {
		select {
		case <-s.news:
		case <-deadline:
			t.Fatalf("%s: not within 5 s; readings %v", what, s.all())
		}
	}
}

// profilesOf loads the built-in profiles and the given texts.
func profilesOf(t testing.TB, texts ...string) *Profiles {
	t.Helper()
	p, faults := LoadProfiles()
	for i, text := range texts {
		profile, wrong := parseProfile(fmt.Sprintf("profile-%d.yaml", i), []byte(text))
		faults = append(faults, wrong...)
		if profile != nil {
			p.byName[profile.Name] = profile
		}
	}
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

// newLine makes a line whose faults would fail the test.
func newLine(t testing.TB, cfg Config, profiles *Profiles, intake telemetry.Intake) (*Line, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	line, err := New(cfg, profiles, intake, reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return line, reg
}

// count is the sum of a counter over the series with the given label value.
func count(t testing.TB, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			fits := label == ""
			for _, pair := range metric.GetLabel() {
				fits = fits || pair.GetValue() == label
			}
			if fits {
				sum += metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}

const level = `
name: level
registers: [{value: river.level_m, address: 4, scale: 0.01}]
`
