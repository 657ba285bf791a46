package registry

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

var noon = time.Date(2026, 3, 14, 5, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string) *Registry {
	t.Helper()
	r, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func devices() []telemetry.Device {
	return []telemetry.Device{{ID: "kim-long", Name: "Kim Long", Facts: map[string]any{"alarm1_m": 1.0, "alarm2_m": 2.0}}, {ID: "phu-oc"}}
}

// change sets values of a device.
func (r *Registry) change(t *testing.T, device string, isNew bool, set map[string]any) []telemetry.Device {
	t.Helper()
	d := telemetry.DeviceChange{Device: device, Set: set, By: "Lan", Why: "đo lại", At: noon}
	_, commit, err := r.Prepare(d, isNew, devices())
	if err != nil {
		t.Fatal(err)
	}
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	return r.Apply(devices())
}

func TestStates(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	do := func(state telemetry.Quality, value string, last time.Duration, after time.Duration) error {
		return r.SetState(telemetry.StateChange{Device: "kim-long", Value: value, State: state, For: last, By: "Lan", Why: "lau đầu đo", At: noon.Add(after)})
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	covered := func(value string, after time.Duration) string {
		out := ""
		for _, p := range open(t, dir).Periods()["kim-long"] { // as another process would read it
			if p.Value == value && p.Covers(noon.Add(after)) {
				out += p.State.String() + " "
			}
		}
		return strings.TrimSpace(out)
	}
	if err := do(telemetry.Good, "", 0, 0); err == nil || err.Error() != "kim-long is measuring already" {
		t.Errorf("measuring again: %v", err)
	}
	if err := do(telemetry.Bad, "", 0, 0); err == nil {
		t.Error("bad is a state")
	}
	must(do(telemetry.Maintenance, "", 2*time.Hour, 0))
	must(do(telemetry.Calibrating, "level_m", 0, time.Hour))
	for _, test := range []struct {
		value string
		after time.Duration
		want  string
	}{{"", -time.Second, ""}, {"", 0, "maintenance"}, {"", 2*time.Hour - 1, "maintenance"}, {"", 2 * time.Hour, ""}, {"level_m", 50 * time.Hour, "calibrating"}} {
		if got := covered(test.value, test.after); got != test.want {
			t.Errorf("%q after %s: %q, want %q", test.value, test.after, got, test.want)
		}
	}
	must(do(telemetry.Calibrating, "", time.Hour, 90*time.Minute)) // instead of maintenance
	if got := covered("", 100*time.Minute); got != "calibrating" {
		t.Errorf("after a new state: %q", got)
	}
	must(do(telemetry.Good, "", 0, 2*time.Hour)) // ends everything
	if got := covered("", 3*time.Hour) + covered("level_m", 3*time.Hour); got != "" {
		t.Errorf("measuring: %q", got)
	}
	if got := covered("", 95*time.Minute); got != "calibrating" {
		t.Errorf("a reading that comes late: %q", got)
	}
	must(do(telemetry.Maintenance, "", time.Hour, 60*time.Hour)) // what ended two days ago is forgotten
	if n := len(open(t, dir).Periods()["kim-long"]); n != 1 {
		t.Errorf("%d periods are kept", n)
	}
	list, err := open(t, dir).History("kim-long", 10)
	if err != nil || len(list) != 5 || list[0].N != 5 || list[0].State != "maintenance" || list[1].State != "measuring" || list[0].By != "Lan" || list[0].Why != "lau đầu đo" {
		t.Errorf("history %+v, %v", list, err)
	}
}

func TestSet(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	got := r.change(t, "kim-long", false, map[string]any{"facts.alarm2_m": 2.1, "name": "Kim Long mới", "interval": "5m", "lat": 16.4, "facts.ready": true})
	want := telemetry.Device{ID: "kim-long", Name: "Kim Long mới", Interval: telemetry.Duration(5 * time.Minute), Facts: map[string]any{"alarm1_m": 1.0, "alarm2_m": 2.1, "ready": true}}
	lat := 16.4
	want.Lat = &lat
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("%+v\nwant %+v", got[0], want)
	}
	if devices()[0].Facts["alarm2_m"] != 2.0 {
		t.Error("the configuration was changed")
	}
	r.change(t, "heard-only", true, map[string]any{"owner": "Đài KTTV"})
	r = open(t, dir)
	if got := r.Apply(devices()); len(got) != 3 || got[2].ID != "heard-only" || got[2].Owner != "Đài KTTV" || !reflect.DeepEqual(got[0], want) {
		t.Errorf("after a restart %+v", got)
	}
	if got := r.change(t, "kim-long", false, map[string]any{"name": nil, "facts.alarm2_m": nil, "interval": nil, "lat": nil, "facts.ready": nil}); !reflect.DeepEqual(got[0], devices()[0]) {
		t.Errorf("put back: %+v", got[0])
	}
	if got := r.change(t, "heard-only", true, map[string]any{"owner": nil}); len(got) != 2 {
		t.Errorf("nothing is set of heard-only, and it stays: %+v", got)
	}
	if len(r.doc.Devices) != 0 {
		t.Errorf("kept without need: %+v", r.doc.Devices)
	}
	for name, value := range map[string]any{
		"id": "x", "kinds": []any{"river"}, "name": "", "interval": "often", "lat": "north", "facts.": 1.0, "facts.x": []any{1.0}, "facts.a b": 1.0, "owner": 3.0,
	} {
		d := telemetry.DeviceChange{Device: "kim-long", Set: map[string]any{name: value}}
		if _, _, err := r.Prepare(d, false, devices()); err == nil || !strings.HasPrefix(err.Error(), name+":") {
			t.Errorf("%s = %v: %v", name, value, err)
		}
	}
}

func TestTwoAtATime(t *testing.T) {
	r := open(t, t.TempDir())
	d := telemetry.DeviceChange{Device: "kim-long", Set: map[string]any{"name": "a"}, At: noon}
	_, first, err := r.Prepare(d, false, devices())
	if err != nil {
		t.Fatal(err)
	}
	r.change(t, "phu-oc", false, map[string]any{"name": "b"})
	if err := first(); err == nil {
		t.Error("a change was made on what is not there any more")
	}
}

// TestCrash: a crash after the document and before the audit, and within a line
// of the audit.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	r.change(t, "kim-long", false, map[string]any{"name": "a"})
	before, err := os.ReadFile(r.audit.path)
	if err != nil {
		t.Fatal(err)
	}
	r.change(t, "kim-long", false, map[string]any{"name": "b"})
	if err := os.WriteFile(r.audit.path, append(before, `{"n":2,"at`...), 0o640); err != nil {
		t.Fatal(err)
	}
	list, err := open(t, dir).History("", 10)
	if err != nil || len(list) != 2 || list[0].Set["name"] != "b" || list[1].Set["name"] != "a" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestFiles(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"newer":     {`{"format":2}`, "format 2"},
		"damaged":   {`{"format":1,"devic`, ""},
		"no format": {`{}`, ""},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, fileName)
		if err := os.WriteFile(path, []byte(test.text), 0o640); err != nil {
			t.Fatal(err)
		}
		log := &strings.Builder{}
		_, err := Open(dir, slog.New(slog.NewTextHandler(log, nil)))
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
		_, aside := os.Stat(path + ".damaged")
		if test.want == "" && (aside != nil || !strings.Contains(log.String(), "not in force")) {
			t.Errorf("%s: %v, told %q", name, aside, log)
		}
	}
}

// TestFull: what cannot be kept is not in force.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	r.change(t, "kim-long", false, map[string]any{"name": "a"})
	if err := errFrom(os.Remove(r.audit.path), os.Mkdir(r.audit.path, 0o750)); err != nil { // nothing can be written there
		t.Fatal(err)
	}
	err := r.SetState(telemetry.StateChange{Device: "kim-long", State: telemetry.Maintenance, At: noon})
	if err == nil || !strings.Contains(err.Error(), "was not made") {
		t.Fatalf("without an audit: %v", err)
	}
	var doc document
	text, _ := os.ReadFile(filepath.Join(dir, fileName))
	if err := json.Unmarshal(text, &doc); err != nil || doc.N != 1 || len(doc.Devices["kim-long"].Periods) != 0 || len(r.Periods()) != 0 {
		t.Errorf("on disk %s, %v", text, err)
	}
}

func errFrom(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestRotation(t *testing.T) {
	r := open(t, t.TempDir())
	why := strings.Repeat("x", 1<<20)
	for i := range 40 {
		if err := r.audit.append(Audit{N: i + 1, Device: "d", Why: why}); err != nil {
			t.Fatal(err)
		}
	}
	total := int64(0)
	files, err := filepath.Glob(r.audit.path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		at, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		total += at.Size()
	}
	if len(files) != 1+oldJournals || total > (1+oldJournals)*maxJournal {
		t.Errorf("%d files of %d bytes", len(files), total)
	}
	list, err := r.History("d", 12)
	if err != nil || len(list) != 12 || list[0].N != 40 || list[11].N != 29 {
		t.Errorf("%d of the history, %v", len(list), err)
	}
}

// TestRefusal: a device is kept out over a restart, with who and why in the audit,
// until it is let in again or registered.
func TestRefusal(t *testing.T) {
	dir, at := t.TempDir(), time.Date(2025, 10, 27, 13, 0, 0, 0, time.UTC)
	r, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Refuse("tram-la", false, "Lan", "x", at); err == nil {
		t.Error("let in although it is not kept out")
	}
	if err := r.Refuse("tram-la", true, "Lan", "không rõ của ai", at); err != nil {
		t.Fatal(err)
	}
	if err := r.Refuse("tram-la", true, "Lan", "x", at); err == nil {
		t.Error("refused twice")
	}
	if r, err = Open(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if got := r.Refused(); len(got) != 1 || got["tram-la"] != (Refusal{at, "Lan", "không rõ của ai"}) {
		t.Errorf("after a restart: %+v", got)
	}
	_, commit, err := r.Prepare(telemetry.DeviceChange{Device: "tram-la", Set: map[string]any{"name": "Trạm lạ"}, By: "Lan", Why: "đã kiểm tra", At: at}, true, nil)
	if err != nil || commit() != nil || len(r.Refused()) != 0 {
		t.Errorf("registered and still refused: %v %v", err, r.Refused())
	}
	history, err := r.History("tram-la", 10)
	if err != nil || len(history) != 2 || history[1].State != "refused" || history[1].By != "Lan" {
		t.Errorf("%+v %v", history, err)
	}
}
