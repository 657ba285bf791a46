package ioc

import (
	"testing"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"haidang/gateway/telemetry"
)

func TestLine(t *testing.T) {
	w := warning("kim-long", 2, telemetry.Severe)
	w.Site, w.Start = "huong", w.At.Add(-1500*time.Millisecond)
	const want = `warning,device=kim-long,rule=flood-alarm,site=huong age_s=1.5,id="kim-long-flood-3f9a2c1b",n=2,severity=3,state="active" 1761532320000000002` + "\n"
	if got := string(Line([]byte("x\n"), &w)); got != "x\n"+want {
		t.Errorf("got  %swant x\n%s", got, want)
	}
}

func TestLineReadsBack(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*telemetry.Warning)
		device   string
		site     string
		severity float64
	}{
		{"as it is", func(*telemetry.Warning) {}, "kim-long", "kim-long", 4},
		{"cleared", func(w *telemetry.Warning) { w.State = telemetry.Cleared }, "kim-long", "kim-long", 0},
		{"no site", func(w *telemetry.Warning) { w.Site = "" }, "kim-long", "kim-long", 4},
		{"Vietnamese", func(w *telemetry.Warning) { w.Device, w.Site = "sông-Hương:1", "Thuận_An" }, "sông-Hương:1", "Thuận_An", 4},
		{"hostile", func(w *telemetry.Warning) { w.Device, w.Site, w.ID = `a,b=c "d`, "x\ny\\", `i"d\` }, `a,b=c "d`, "x y/", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := warning("kim-long", 7, telemetry.Extreme)
			c.change(&w)
			d := lineprotocol.NewDecoderWithBytes(Line(nil, &w))
			if !d.Next() {
				t.Fatal("no line")
			}
			if m, err := d.Measurement(); err != nil || string(m) != "warning" {
				t.Errorf("measurement %q %v", m, err)
			}
			tags := map[string]string{}
			for {
				key, value, err := d.NextTag()
				if err != nil {
					t.Fatal(err)
				}
				if key == nil {
					break
				}
				tags[string(key)] = string(value)
			}
			if len(tags) != 3 || tags["device"] != c.device || tags["site"] != c.site || tags["rule"] != "flood-alarm" {
				t.Errorf("tags %v", tags)
			}
			fields := map[string]any{}
			for {
				key, value, err := d.NextField()
				if err != nil {
					t.Fatal(err)
				}
				if key == nil {
					break
				}
				fields[string(key)] = value.Interface()
			}
			if len(fields) != 5 || fields["age_s"] != 0.0 || fields["n"] != 7.0 || fields["severity"] != c.severity || fields["state"] != string(w.State) || fields["id"] != w.ID {
				t.Errorf("fields %v", fields)
			}
			at, err := d.Time(lineprotocol.Nanosecond, time.Time{})
			if want := w.At.Add(7); err != nil || !at.Equal(want) {
				t.Errorf("time %s %v, want %s", at, err, want)
			}
			if d.Next() {
				t.Error("more than one line")
			}
		})
	}
}

func BenchmarkLine(b *testing.B) {
	w := warning("kim-long", 2, telemetry.Severe)
	dst := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		dst = Line(dst[:0], &w)
	}
}
