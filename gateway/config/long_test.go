package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"haidang/gateway/telemetry"
)

type stations struct {
	Units []unit `yaml:"units"`
	Rest  []struct {
		Name  string         `yaml:"name"`
		Kinds []string       `yaml:"kinds"`
		Facts map[string]any `yaml:"facts"`
	} `yaml:"devices"`
}

// longTexts are what may stand in a long file, told to be read in pieces or not.
func longTexts() map[string]bool {
	return map[string]bool{
		"devices:\n  - {name: a}\n  - name: b\n    kinds: [x,\n  y]\n":                                              false, // YAML itself takes that
		"devices:\n  - {name: a}\n  - name: b\n    kinds:\n    - x\n    - y\n\n  # more\n  - {name: c}\n# end\n":    true,
		"# stations\n\ndevices: # all\n\n# first\n- name: a\n  facts: {x: 1}\n- name: b\n-\n  name: c\n-   name: d": true,
		"devices:\r\n  - {name: a}\r\n  - {name: b}\r\n":                                                            true,
		"devices:\n  - {name: a, nome: b}\n  - {name: [b]}\n  - {name: c, facts: {x: '${HAIDANG_TEST_MISSING}'}}\n": true,
		"devices:\n  - name: |\n      - x\n      y\n  - name: \"a\n      - b\"\n":                                   true,
		"devices:\n  - name: \"a\n  - b\"\n  - name: c\n":                                                           false,
		"devices:\n  - &a {name: a}\n  - *a\n  - {name: c}\n":                                                       false,
		"devices:\n  - {name: a}\n  - {name: b\n  - {name: c}\n":                                                    false,
		"devices:\n  - {name: a}\n  - {name: b}\nunits:\n  - {id: 1}\n":                                             false,
		"devices:\n  - {name: a}\n---\ndevices:\n  - {name: b}\n":                                                   false,
		"devices: [{name: a}]\n":                            false,
		"devices:\n  name: a\n":                             false,
		"devices:\n":                                        false,
		"vessels:\n  - {name: a}\n":                         false,
		"devices:\n  - {name: a}\n - {name: b}\n":           false,
		"devices:\n  - {name: a}\n\t- {name: b}\n":          false,
		"devices:\n  - {name: a}\n  -b\n":                   false,
		"devices:\n  - {name: \"a\u2028b\"}\n  - {id: b}\n": false,
		"units:\n  - {id: 1}\n  - {id: x}\n":                true,
		"":                                                  false,
		"devices:\n" + strings.Repeat("  - {name: a, kinds: [x, y], facts: {z: 1.5, w: 'on'}}\n", 500) + "  - {id: 1}": true,
	}
}

// TestReadInPieces: a list that is read in pieces gives what it gives as a whole, down
// to the faults and their lines.
func TestReadInPieces(t *testing.T) {
	for text, inPieces := range longTexts() {
		d := sameAsWhole(t, text)
		if got := d != nil && d.long != nil; got != inPieces {
			t.Errorf("read in pieces: %v, want %v\n%.300s", got, inPieces, text)
		}
	}
}

// TestTooLong: a list may be longer than another document, and what is wrong with it
// is told by its line all the same.
func TestTooLong(t *testing.T) {
	line := "  - {name: a, facts: {note: " + strings.Repeat("x", 1<<10) + "}}\n"
	long := "devices:\n" + strings.Repeat(line, 17)
	var got stations
	small := bounds{long: 1 << 10, piece: 1 << 10, whole: 16 << 10, list: 64 << 10}
	if _, faults := read("x.yaml", []byte(long), &got, small); len(faults) > 0 || len(got.Rest) != 17 {
		t.Errorf("%d devices: %.200s", len(got.Rest), faults.Error())
	}
	for text, want := range map[string]string{
		long + "  - {name: [b}\n" + line:        "x.yaml:19: not YAML: ",
		long + "  - {nome: b}\n":                `x.yaml:19: devices[17].nome: unknown key "nome"; did you mean "name"?`,
		long + "units: []\n":                    "more than the 16384",
		"devices: [" + long[9:] + "]\n":         "more than the 16384",
		"devices:\n" + strings.Repeat(line, 65): "more than the 16384",
	} {
		if _, faults := read("x.yaml", []byte(text), &stations{}, small); len(faults) != 1 || !strings.Contains(faults.Error(), want) {
			t.Errorf("got %.300s\nwant %s", faults.Error(), want)
		}
	}
}

func FuzzRead(f *testing.F) {
	for text := range longTexts() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) < 4<<10 {
			sameAsWhole(t, text)
		}
	})
}

func sameAsWhole(t *testing.T, text string) *Document {
	t.Helper()
	var want, got stations
	whole, faults := read("x.yaml", []byte(text), &want, bounds{long: MaxBytes, whole: MaxBytes})
	pieces, found := read("x.yaml", []byte(text), &got, bounds{piece: 1, whole: MaxBytes, list: MaxBytes})
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("in pieces %+v\nwhole %+v\n%s", got, want, text)
	}
	if found.Error() != faults.Error() || (whole == nil) != (pieces == nil) {
		t.Fatalf("in pieces:\n%s\nwhole:\n%s\n%s", found.Error(), faults.Error(), text)
	}
	if whole == nil {
		return nil
	}
	for i := range faults {
		if whole.Span(faults[i]) != pieces.Span(found[i]) {
			t.Fatalf("%s: in pieces %+v, whole %+v\n%s", faults[i], pieces.Span(found[i]), whole.Span(faults[i]), text)
		}
	}
	for i := range min(len(want.Rest)+2, 20) {
		for _, path := range []string{"", ".name", ".facts.z", ".kinds[1]"} {
			f := []telemetry.Fault{telemetry.Faultf(fmt.Sprintf("devices[%d]%s", i, path), "odd")}
			w, g := whole.Locate(f)[0], pieces.Locate(f)[0]
			if i < len(want.Rest) && (w.Line != g.Line || whole.Span(w) != pieces.Span(g)) {
				t.Fatalf("devices[%d]%s: in pieces line %d, whole line %d\n%s", i, path, g.Line, w.Line, text)
			}
		}
	}
	return pieces
}
