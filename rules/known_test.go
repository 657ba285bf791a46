package rules

import (
	"bytes"
	"reflect"
	"testing"
)

// TestOneMeaning: a document as it was written and as it is read from the log are one
// and the same, so that an engine may take the set of the first for the second.
func TestOneMeaning(t *testing.T) {
	for _, written := range []string{propertyDocument, `
packs: [air.yaml, fire.yaml, fishing.yaml, flood.yaml, station.yaml, water.yaml]
devices:
  - {id: a, site: s, kinds: [river, rain], interval: 90s, lat: -0.0, lon: 1e-7, owner: "O \u2028 <&>", facts: {whole: 3, part: 0.1, word: "0012", truth: true, zone: west}}
  - {id: b, kinds: [], interval: 36h, facts: {}}
  - {id: c, kinds: [river], interval: 1.5s, quality: {level_m: {}}, calibration: {level_m: {offset: 0.1}}}
`} {
		doc := readDocument(t, written)
		limits(t, &doc)
		text, err := canonical(doc)
		if err != nil {
			t.Fatal(err)
		}
		read, err := parseDocument(text)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := canonical(read); err != nil || !bytes.Equal(again, text) {
			t.Fatalf("%v\nread from the log\n%s\nwritten\n%s", err, again, text)
		}
		a, b := compile(t, doc), compile(t, read)
		for i := range a.rules {
			if a.rules[i].version != b.rules[i].version || a.rules[i].condition != b.rules[i].condition {
				t.Errorf("%s is not the same", a.rules[i].Name)
			}
		}
		if !reflect.DeepEqual(a.facts, b.facts) || !reflect.DeepEqual(a.factKinds, b.factKinds) || !reflect.DeepEqual(a.parts, b.parts) ||
			!reflect.DeepEqual(a.weights, b.weights) || !reflect.DeepEqual(a.Warnings(), b.Warnings()) || a.retention != b.retention {
			t.Error("the sets are not the same")
		}
		for i := range a.registry.Devices() {
			x, y := &a.registry.Devices()[i], &b.registry.Devices()[i]
			for name := range a.factKinds {
				v, known := x.Fact(name)
				if w, also := y.Fact(name); v != w || known != also {
					t.Errorf("%s of %s is %v, from the log %v", name, x.ID, v, w)
				}
			}
			if x.Interval != y.Interval || len(x.Kinds) != len(y.Kinds) {
				t.Errorf("%+v, from the log %+v", x, y)
			}
		}
	}
}

// limits gives a document the limits that rules of the packs name.
func limits(t *testing.T, doc *Document) {
	t.Helper()
	for _, name := range []string{"air.yaml", "water.yaml"} {
		text, err := Packs.ReadFile("packs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		doc.Limits = append(doc.Limits, readDocument(t, string(text)).Limits...)
	}
}
