package rules

import (
	"encoding/json"
	"testing"

	"github.com/paulmach/orb"

	"haidang/gateway/telemetry"
)

func FuzzControl(f *testing.F) {
	good := control(f, readDocument(f, `rules: [{name: high, on: river, when: level_m > 2}]`))
	f.Add(good[0].Text("hash"), 1.0, 1.0, good[0].Text("d00"))
	f.Add("x", 2.0, 1.0, "AAAA")
	f.Fuzz(func(t *testing.T, hash string, part, parts float64, word string) {
		var a assembly
		r := telemetry.Reading{Kind: telemetry.KindControl, Values: []telemetry.Value{
			{Name: "hash", Text: hash}, {Name: "part", Number: part}, {Name: "parts", Number: parts}, {Name: "d00", Text: word},
		}}
		text, err := a.add(&r)
		if text != nil && (err != nil || hashOf(text) != hash) {
			t.Fatalf("a document with another hash was taken: %v", err)
		}
	})
}

func FuzzZones(f *testing.F) {
	f.Add([]byte(`{"type": "FeatureCollection", "features": [{"properties": {"name": "z"}, "geometry": {"type": "Polygon", "coordinates": [[[0,0],[1,0],[1,1],[0,0]]]}}]}`))
	f.Add([]byte(`{"type": "FeatureCollection", "features": [{"properties": {"name": "z"}, "geometry": {"type": "MultiPolygon", "coordinates": [[[[0,0],[1,0],[1,1],[0,0]]]]}}]}`))
	f.Add([]byte(`{"type": "FeatureCollection", "features": [{"properties": {"name": "z"}, "geometry": {"type": "Polygon", "coordinates": [[], [[1]]]}}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		zones, faults := parseZones(json.RawMessage(text))
		for name, z := range zones {
			if name == "" || len(z.area)+len(z.lines) == 0 {
				t.Fatalf("zone %q is empty", name)
			}
			here, there := orb.Point{107.5, 16.4}, orb.Point{0.5, 0.4}
			if d := z.distance(here); !(d >= 0 && d <= 21e6) || z.contains(here) != (len(z.area) > 0 && d == 0 && z.contains(here)) {
				t.Fatalf("zone %q is %v m away", name, d)
			}
			z.crossed(here, there)
		}
		_ = faults
	})
}

func TestControlReadings(t *testing.T) {
	doc := readDocument(t, propertyDocument)
	readings := control(t, doc)
	if len(readings) != 1 || readings[0].Device != "box" || readings[0].Kind != telemetry.KindControl || readings[0].Text("hash") != Hash(doc) {
		t.Errorf("%+v", readings)
	}
	doc.Zones = json.RawMessage("{broken")
	if _, err := ControlReadings("box", doc); err == nil || Hash(doc) != "" {
		t.Error("a document with broken zones was written")
	}
}
