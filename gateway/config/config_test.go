package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

type unit struct {
	ID     int    `yaml:"id"`
	Device string `yaml:"device"`
}

type sample struct {
	Data   string             `yaml:"data"`
	Strict bool               `yaml:"strict"`
	MaxAge telemetry.Duration `yaml:"max_age"`
	Max    telemetry.Size     `yaml:"max"`
	Factor float64            `yaml:"factor"`
	Low    *float64           `yaml:"low"`
	Units  []unit             `yaml:"units"`
	Facts  map[string]any     `yaml:"facts"`
	Nested struct {
		Listen string `yaml:"listen"`
	} `yaml:"nested"`
}

func TestDecode(t *testing.T) {
	t.Setenv("HAIDANG_TEST_SECRET", "a: [b")
	doc, err := Parse("x.yaml", []byte(`
data: /var/lib/${HAIDANG_TEST_SECRET}
max_age: 60d
max: 8GiB
low: -1.5
units: [{id: 0x10, device: kim-long}]
facts: {alarm1_m: 1.00, river: Hương, tidal: false, code: "0012"}
nested: {listen: "${HAIDANG_TEST_NONE:-127.0.0.1:1}"}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := sample{Strict: true, Factor: 2}
	if faults := doc.Decode(&got); len(faults) > 0 {
		t.Fatal(faults)
	}
	if got.Data != "/var/lib/a: [b" || got.MaxAge.Std() != 60*24*time.Hour || got.Max != 8<<30 || *got.Low != -1.5 {
		t.Errorf("decoded %+v", got)
	}
	if !got.Strict || got.Factor != 2 {
		t.Error("a key that was left out lost its default")
	}
	if got.Units[0] != (unit{16, "kim-long"}) || got.Nested.Listen != "127.0.0.1:1" {
		t.Errorf("decoded %+v", got)
	}
	if got.Facts["alarm1_m"] != 1.0 || got.Facts["river"] != "Hương" || got.Facts["tidal"] != false || got.Facts["code"] != "0012" {
		t.Errorf("facts %#v", got.Facts)
	}
}

// TestBad decodes each testdata/bad/*.yaml; every line of its first comments
// that begins with "# want: " must be among the faults, and no others.
func TestBad(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	if len(files) == 0 {
		t.Fatal("no case in testdata/bad")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, line := range strings.Split(string(text), "\n") {
				if w, ok := strings.CutPrefix(line, "# want: "); ok {
					want = append(want, w)
				}
			}
			var got []string
			doc, err := Parse(filepath.Base(file), text)
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			} else {
				for _, f := range doc.Decode(&sample{}) {
					got = append(got, f.String())
				}
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("faults:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestLocate(t *testing.T) {
	doc, err := Parse("gateway.yaml", []byte("data: x\nunits:\n  - id: 1\n  - id: 300\n    device: pump\n"))
	if err != nil {
		t.Fatal(err)
	}
	for path, line := range map[string]int{"units[1].id": 4, "units[1].device": 5, "units[1].profile": 4, "units[7]": 2, "data": 1, "none": 1} {
		if got := doc.Locate([]telemetry.Fault{{Path: path, Want: "w"}})[0]; got.Line != line {
			t.Errorf("%s is in line %d, want %d", path, got.Line, line)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("data: &a [*a]\n"))
	f.Add([]byte("units: [{id: 1}]\nfacts: {a: {b: [1, 2]}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := Parse("fuzz.yaml", text)
		if err != nil {
			return
		}
		_ = doc.Decode(&sample{}).Error()
	})
}

func TestAliasBomb(t *testing.T) {
	var text strings.Builder
	text.WriteString("facts:\n  a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n")
	for i := '1'; i <= '9'; i++ {
		text.WriteString("  a" + string(i) + ": &a" + string(i) + " [" + strings.Repeat("*a"+string(i-1)+", ", 9) + "*a" + string(i-1) + "]\n")
	}
	doc, err := Parse("bomb.yaml", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	faults := doc.Decode(&sample{})
	if len(faults) != 1 || !strings.Contains(faults[0].Want, "more than 2000000 values") {
		t.Errorf("faults %v", faults)
	}
}
