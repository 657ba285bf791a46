package archive

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

type entry struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

func open1(t *testing.T, dir string, c Config) *Archive[entry] {
	t.Helper()
	a, err := Open(dir, Options[entry]{Name: "test", At: func(e *entry) time.Time { return e.At }, Config: c, Reg: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func at(text string) time.Time {
	when, err := time.ParseInLocation("2006-01-02 15:04", text, vietnam())
	if err != nil {
		panic(err)
	}
	return when
}

func (a *Archive[T]) all(t *testing.T, from, to time.Time, mark string) (out []T) {
	t.Helper()
	if err := a.Each(t.Context(), from, to, []byte(mark), func(r T) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func words(list []entry) string {
	var out []string
	for _, e := range list {
		out = append(out, e.What)
	}
	return strings.Join(out, " ")
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if e.Name() != lockName {
			out = append(out, e.Name())
		}
	}
	return strings.Join(out, " ")
}

// TestMonths: records are found by time and by what is in them, before and after
// their month is closed; sha256sum agrees with what was noted.
func TestMonths(t *testing.T) {
	dir := t.TempDir()
	a := open1(t, dir, Config{})
	if _, ok := a.Since(); ok {
		t.Error("an empty archive has a beginning")
	}
	if err := a.Append([]entry{{at("2025-09-30 23:59"), "a"}, {at("2025-10-01 00:00"), "b"}, {at("2025-10-27 20:00"), "c"}}); err != nil {
		t.Fatal(err)
	}
	// A clock that was set back: kept with the newest.
	if err := a.Append([]entry{{at("2025-09-15 12:00"), "late"}, {at("2025-11-02 08:00"), "d"}}); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if got := words(a.all(t, time.Time{}, at("2030-01-01 00:00"), "")); got != "a b c late d" {
			t.Errorf("all: %s", got)
		}
		if got := words(a.all(t, at("2025-10-01 00:00"), at("2025-11-02 08:00"), "")); got != "b c" {
			t.Errorf("October: %s", got)
		}
		if got := words(a.all(t, time.Time{}, at("2030-01-01 00:00"), `"what":"c"`)); got != "c" {
			t.Errorf("those marked: %s", got)
		}
		if since, ok := a.Since(); !ok || !since.Equal(at("2025-09-30 23:59")) {
			t.Errorf("since %v, %v", since, ok)
		}
	}
	check()
	if err := a.Sweep(at("2025-11-03 00:00")); err != nil {
		t.Fatal(err)
	}
	check()
	if got := names(t, dir); got != "2025-09-0001.jsonl.gz 2025-10-0001.jsonl.gz 2025-11-0001.jsonl SHA256SUMS" {
		t.Errorf("the folder has %s", got)
	}
	if _, err := Verify(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if sum, err := exec.LookPath("sha256sum"); err == nil {
		c := exec.Command(sum, "-c", sumsName)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("sha256sum -c: %v\n%s", err, out)
		}
	}
	// A month that was closed is not written again.
	if err := a.Sweep(at("2025-12-01 00:00")); err != nil {
		t.Fatal(err)
	}
	if err := a.Append([]entry{{at("2025-11-30 23:00"), "e"}}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); !strings.Contains(got, "2025-11-0001.jsonl.gz 2025-11-0002.jsonl ") {
		t.Errorf("the folder has %s", got)
	}
	if got := words(a.all(t, at("2025-11-01 00:00"), at("2026-01-01 00:00"), "")); got != "d e" {
		t.Errorf("November: %s", got)
	}
}

// TestCrash: a line that is torn costs that line only, and a file that was being
// closed is whole in one of its forms.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	a := open1(t, dir, Config{})
	if err := a.Append([]entry{{at("2025-10-01 00:00"), "a"}, {at("2025-10-02 00:00"), "b"}}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "2025-10-0001.jsonl")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text[:len(text)-5], 0o640); err != nil {
		t.Fatal(err)
	}
	a = open1(t, dir, Config{})
	if err := a.Append([]entry{{at("2025-10-02 00:00"), "b"}, {at("2025-10-03 00:00"), "c"}}); err != nil {
		t.Fatal(err)
	}
	if got := words(a.all(t, time.Time{}, at("2026-01-01 00:00"), "")); got != "a b c" {
		t.Errorf("after a torn line: %s", got)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Sweep(at("2025-11-01 00:00")); err != nil {
		t.Fatal(err)
	}
	// As if it had ended before the checksum was noted and the plain form removed.
	for name, text := range map[string][]byte{path: whole, filepath.Join(dir, sumsName): nil} {
		if err := os.WriteFile(name, text, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if got := words(a.all(t, time.Time{}, at("2026-01-01 00:00"), "")); got != "a b c" {
		t.Errorf("with both forms: %s", got)
	}
	if err := a.Sweep(at("2025-11-01 00:00")); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "2025-10-0001.jsonl.gz SHA256SUMS" {
		t.Errorf("the folder has %s", got)
	}
	if _, err := Verify(t.Context(), dir); err != nil {
		t.Error(err)
	}
}

// TestDamage: what is changed, cut, missing or foreign is named, and the other
// files are read all the same.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	a := open1(t, dir, Config{})
	for _, month := range []string{"2025-07", "2025-08", "2025-09", "2025-10"} {
		if err := a.Append([]entry{{at(month + "-01 00:00"), month}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Sweep(at("2025-11-01 00:00")); err != nil {
		t.Fatal(err)
	}
	var forged bytes.Buffer
	w := gzip.NewWriter(&forged)
	_, _ = io.WriteString(w, `{"at":"2025-08-01T00:00:00Z","what":"forged"}`+"\n")
	_ = w.Close()
	cut, _ := os.ReadFile(filepath.Join(dir, "2025-07-0001.jsonl.gz"))
	for name, text := range map[string][]byte{"2025-07-0001.jsonl.gz": cut[:len(cut)-6], "2025-08-0001.jsonl.gz": forged.Bytes(), "2025-06-0001.jsonl.gz": forged.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "2025-09-0001.jsonl.gz")); err != nil {
		t.Fatal(err)
	}
	_, err := Verify(t.Context(), dir)
	for _, want := range []string{"2025-06-0001.jsonl.gz has no checksum", "2025-07-0001.jsonl.gz is not what it was", "2025-08-0001.jsonl.gz is not what it was", "2025-09-0001.jsonl.gz is missing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell: %s", err, want)
		}
	}
	var got []entry
	err = a.Each(t.Context(), time.Time{}, at("2030-01-01 00:00"), nil, func(e entry) error { got = append(got, e); return nil })
	if err == nil || !strings.Contains(err.Error(), "2025-07-0001.jsonl.gz") || !strings.HasSuffix(words(got), "2025-10") {
		t.Errorf("%v, %s", err, words(got))
	}
}

// TestBounds: what is too old goes, and what there is no room for, the oldest
// first; both are counted, and the newest file stays.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	a := open1(t, dir, Config{Keep: telemetry.Duration(60 * 24 * time.Hour)})
	for _, month := range []string{"2025-06", "2025-08", "2025-09", "2025-10"} {
		if err := a.Append([]entry{{at(month + "-01 00:00"), month}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Sweep(at("2025-10-15 00:00")); err != nil {
		t.Fatal(err)
	}
	if got := words(a.all(t, time.Time{}, at("2030-01-01 00:00"), "")); got != "2025-08 2025-09 2025-10" || testutil.ToFloat64(a.dropped[droppedAge]) != 1 {
		t.Errorf("by age: %s is left", got)
	}
	a.o.Config.MaxBytes = 1
	if err := a.Sweep(at("2025-10-15 00:00")); err != nil {
		t.Fatal(err)
	}
	if got := words(a.all(t, time.Time{}, at("2030-01-01 00:00"), "")); got != "2025-10" || testutil.ToFloat64(a.dropped[droppedRoom]) != 2 {
		t.Errorf("for want of room: %s is left", got)
	}
	if _, err := Verify(t.Context(), dir); err != nil {
		t.Error(err)
	}
}

// TestWriters: several write into one folder, as the gateway and verbs beside it,
// while it is swept and read.
func TestWriters(t *testing.T) {
	dir := t.TempDir()
	const writers, each = 4, 50
	var all sync.WaitGroup
	for w := range writers {
		a := open1(t, dir, Config{})
		all.Go(func() {
			for i := range each {
				month := []string{"2025-09", "2025-10", "2025-11"}[i*3/each]
				if err := a.Append([]entry{{at(month + "-02 00:00"), fmt.Sprint(w, ":", i)}}); err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					if err := a.Sweep(at(month + "-03 00:00")); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	a := open1(t, dir, Config{})
	seen := map[string]int{}
	for _, e := range a.all(t, time.Time{}, at("2030-01-01 00:00"), "") {
		seen[e.What]++
	}
	if len(seen) != writers*each {
		t.Errorf("%d records of %d", len(seen), writers*each)
	}
	for what, n := range seen {
		if n != 1 {
			t.Errorf("%s is there %d times", what, n)
		}
	}
}

// TestHealth: a folder that takes nothing is told until it takes something.
func TestHealth(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "archive")
	a := open1(t, dir, Config{})
	put := func() error { return a.Append([]entry{{at("2025-10-01 00:00"), "a"}}) }
	if err := errors.Join(put(), a.Health()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := put(); err == nil || a.Health() == nil || testutil.ToFloat64(a.failed) != 1 {
		t.Errorf("%v, %v", err, a.Health())
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(put(), a.Health()); err != nil {
		t.Error(err)
	}
}

// TestEnds: the reader's error, and the end of its context, end the reading.
func TestEnds(t *testing.T) {
	a := open1(t, t.TempDir(), Config{})
	if err := a.Append(slices.Repeat([]entry{{at("2025-10-01 00:00"), "x"}}, 3000)); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("enough")
	n := 0
	if err := a.Each(t.Context(), time.Time{}, at("2030-01-01 00:00"), nil, func(entry) error { n++; return stop }); err != stop || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := a.Each(ctx, time.Time{}, at("2030-01-01 00:00"), nil, func(entry) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		config Config
		paths  string
	}{
		{Config{}, ""},
		{Config{Keep: telemetry.Duration(time.Hour)}, "keep"},
		{Config{MaxBytes: 1 << 20}, "max_bytes"},
		{Config{Keep: telemetry.Duration(365 * 24 * time.Hour), MaxBytes: 1 << 30}, ""},
	} {
		var paths []string
		for _, f := range c.config.Validate() {
			paths = append(paths, f.Path)
		}
		if got := strings.Join(paths, " "); got != c.paths {
			t.Errorf("%+v: faults at %q, want %q", c.config, got, c.paths)
		}
	}
}

// BenchmarkEach is how fast a closed month is looked through for one warning.
func BenchmarkEach(b *testing.B) {
	dir := b.TempDir()
	a, err := Open(dir, Options[telemetry.Transition]{Name: "bench", At: func(t *telemetry.Transition) time.Time { return t.At }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	var list []telemetry.Transition
	for i := range 50_000 {
		list = append(list, telemetry.Transition{Warning: telemetry.Warning{ID: fmt.Sprintf("s%d-flood-level-%x", i%500, i), N: 1, Rule: "flood-level", Device: fmt.Sprint("s", i%500), Site: fmt.Sprint("s", i%500),
			Kind: "river", State: telemetry.Active, Severity: telemetry.Severe, Start: at("2025-10-27 20:00"), At: at("2025-10-27 20:00"), Values: map[string]float64{"level_m": 2 + float64(i)/1e4},
			Message:    telemetry.Text{VI: "Mực nước trạm 2.21 m, trên báo động II", EN: "Station at 2.21 m, above alarm level II"},
			Expression: "level_m >= device.alarm2_m", RuleVersion: "3f9a2c1b77d0", Source: "mqtt", To: []string{"ioc", "flood-committee"}}, Step: 1})
	}
	line, _ := json.Marshal(list[0])
	if err := errors.Join(a.Append(list), a.Sweep(at("2025-11-27 20:00"))); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(a.bytes())/float64(len(list)), "B/record")
	b.SetBytes(int64(len(line) * len(list)))
	for b.Loop() {
		n := 0
		if err := a.Each(b.Context(), time.Time{}, at("2030-01-01 00:00"), []byte(`"id":"s7-flood-level-7"`), func(telemetry.Transition) error { n++; return nil }); err != nil || n != 1 {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.N*len(list))/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(a.bytes())/float64(len(list)), "B/record")
}
