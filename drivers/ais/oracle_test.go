package ais

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"haidang/drivers/link"
)

// testdata returns the folder of recorded data with oracles.
func testdata(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("HAIDANG_TESTDATA")
	if dir == "" {
		t.Skip("HAIDANG_TESTDATA is not set: no recorded AIS data to compare with")
	}
	return dir
}

// lines returns the lines of a recorded file.
func lines(t testing.TB, path string) (out [][]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := link.Unzip(f)
	if err != nil {
		t.Fatal(err)
	}
	l := link.NewLineReader(r, 0)
	for err == nil {
		err = l.Burst(func(b []byte) { out = append(out, bytes.Clone(b)) }, func([]byte) { t.Fatal("line too long") })
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	return out
}

type expected struct {
	Line    int    `json:"line"`
	Payload string `json:"payload"`
	Fill    uint8  `json:"fill"`
	Status  string `json:"status"`
	Fields  string // flat JSON
}

func readExpected(t *testing.T, path string) (out []expected) {
	t.Helper()
	for _, line := range lines(t, path) {
		head, fields, _ := bytes.Cut(line, []byte(`,"fields":`))
		if len(fields) > 0 {
			head = append(bytes.Clone(head), '}')
		}
		var e expected
		if err := json.Unmarshal(head, &e); err != nil {
			t.Fatalf("%v in %s", err, head)
		}
		fields, _, _ = bytes.Cut(fields, []byte(`,"contested":`))
		e.Fields = string(fields)
		out = append(out, e)
	}
	return out
}

// flat lists the keys and values of a JSON object without objects in it; the
// values are as written. encoding/json takes ten times as long with -race.
func flat(text string) map[string]string {
	m := make(map[string]string, 24)
	for {
		_, rest, ok := strings.Cut(text, `"`)
		if !ok {
			return m
		}
		key, value, ok := strings.Cut(rest, `":`)
		if !ok || value == "" || value[0] == '[' || value[0] == '{' {
			return m
		}
		end := strings.IndexAny(value, ",}")
		if value[0] == '"' {
			for end = 1; end < len(value) && value[end] != '"'; end++ {
				if value[end] == '\\' {
					end++
				}
			}
			end++
		}
		if end < 0 || end > len(value) {
			return m
		}
		m[key], text = value[:end], value[end:]
	}
}

// spell writes bits for comparing.
func spell(b *bits) string { return fmt.Sprintf("%d:%x", b.n, b.data[:(b.n+7)/8]) }

type decoded struct {
	bits string
	json string
}

// decodeAll runs all lines through the layers that Decode uses.
func decodeAll(t testing.TB, all [][]byte, scaled bool) ([]decoded, Counts) {
	var out []decoded
	p, j := newParser(), newJSONWriter(scaled)
	for _, line := range all {
		p.feed(line, time.Time{}, func(m *message) {
			text := j.message(m)
			if text == nil {
				t.Errorf("type %d of %d bits passed the length check and was not decoded: %s", m.kind, m.bits.n, line)
			}
			out = append(out, decoded{spell(&m.bits), string(text)})
		})
	}
	p.end()
	return out, p.counts
}

// TestOracle compares every field of every record on which gpsdecode and
// go-ais agree.
func TestOracle(t *testing.T) {
	t.Parallel()
	dir := testdata(t)
	files, _ := filepath.Glob(filepath.Join(dir, "ais/expected/*.jsonl.gz"))
	if len(files) == 0 {
		t.Fatal("no expected files")
	}
	consensus := 0
	for _, file := range files {
		source := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".expected.jsonl.gz"), "__", "/")
		t.Run(source, func(t *testing.T) {
			got, counts := decodeAll(t, lines(t, filepath.Join(dir, source)), false)
			n := 0
			for _, e := range readExpected(t, file) {
				var b bits
				if !b.set([]byte(e.Payload), e.Fill) {
					t.Fatalf("line %d: payload %q is not armoured", e.Line, e.Payload)
				}
				if n == len(got) || got[n].bits != spell(&b) {
					if e.Status == "consensus" {
						t.Fatalf("line %d: not decoded: %s; counts %+v; instead %s", e.Line, e.Payload, counts.Reasons(), got[min(n, len(got)-1)].json)
					}
					continue
				}
				if e.Status == "consensus" {
					consensus++
					compareFields(t, e.Line, got[n].json, e.Fields)
				}
				n++
			}
			if n != len(got) {
				t.Errorf("%d messages more than the oracle, the first %s", len(got)-n, got[n].json)
			}
		})
	}
	if consensus < 38_000 {
		t.Errorf("only %d consensus records were compared", consensus)
	}
}

func compareFields(t *testing.T, line int, text, want string) {
	t.Helper()
	got, fields := flat(text), flat(want)
	if len(fields) < 4 {
		t.Fatalf("line %d: only %d fields in %s", line, len(fields), want)
	}
	for k, w := range fields {
		if got[k] != w {
			t.Errorf("line %d: %s is %s, want %s in %s", line, k, got[k], w, text)
		}
	}
}

// TestContested says how the messages are decoded on which the two oracles
// differ.
func TestContested(t *testing.T) {
	for _, c := range []struct{ name, payload, key, want string }{
		{"text ends at the first @", "56Sf<N01jR>3?7D0001TtpLAD<d000000000016@00000401P1T00000000000000000000,2", "shipname", "YONGDUCK"},
		{"name and extension", "E>lsouHpqP000000000000000004cRn9tKBU`10888QJ`gwwh1,4", "name", "13"},
		{"callsign begins with @", "H7P:0D4l00000000F=knoj0h;330,0", "callsign", ""},
		{"truncated 7", "7IiQ4T`UjA9lC;b:M<MWE@,4", "mmsi3", "0"},
		{"truncated 15", "?w>DNkiVT>Qp8eMvd@,4", "type1_2", "0"},
		{"truncated 20", "DD2r994wluqiIJv<ah,4", "offset3", "0"},
		{"25 without structure", "I6SWo?8P00a3PKpEKEVj0?vNP<65,0", "data", "96:81be156d59b200ff9e80c185"},
		{"26", "JaL0mr5P000DtRDMddr@0?vF06iD,0", "data", "88:"},
		{"163 bits of type 1", "13aIkM@P00PJ@qPNL=e@0?wJ28JO,5", "lon", "3442480"},
		{"420 bits of type 5", armoured(420, 5, append(sixBit(112, "SHORT"), field{8, 30, 574000001})...), "shipname", "SHORT"},
		{"27 with a GNSS position", "KC5E2b@U19PFdLbMuc5=ROv62<7m,0", "gnss", "true"},
		{"24B of an auxiliary craft", armoured(168, 24, field{8, 30, 982320000}, field{38, 2, 1}, field{132, 30, 227006760}), "mothership_mmsi", "227006760"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, counts := decodeAll(t, [][]byte{[]byte(wrap("AIVDM,1,1,,A," + c.payload))}, false)
			if len(got) != 1 {
				t.Fatalf("%d messages, counts %v", len(got), counts.Reasons())
			}
			var o map[string]any
			if err := json.Unmarshal([]byte(got[0].json), &o); err != nil {
				t.Fatal(err)
			}
			v, ok := o[c.key]
			if !ok || !strings.HasPrefix(fmt.Sprintf("%v", number(v)), c.want) || c.want == "" && v != "" {
				t.Errorf("%s is %v, want %q in %s", c.key, v, c.want, got[0].json)
			}
		})
	}
	for _, c := range []struct{ name, payload string }{
		{"24 part 3", "H3KLehdt00000000?6ekkjm000000,0"},
		{"over-long 13", "=<==hm`D4<9TDbJTH3Q1:e1aJmF7mIQ1e;HhlE`,2"},
		{"over-long 20", "D?Vc8001A160D8?MKSi8D1j?2J3DdJP2:=3@0:P0KH20qiGHRbQ4,0"},
		{"short 5", "5EKsbc@J1D8humttJ2KCgSM>JSlkeS;K6Hni,0"},
		{"short 6", "6>lsot@1<i5P,0"},
		{"type 63", "wa?NCnmBsOug?G?Vgm?4?w0,2"},
		{"type 0", "0000000000000000000000000000,0"},
		{"type 28", "L000000000000000000000000000,0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, counts := decodeAll(t, [][]byte{[]byte(wrap("AIVDM,1,1,,A," + c.payload))}, false)
			if len(got) != 0 || counts.Rejected[BadPayload] != 1 {
				t.Errorf("%d messages, counts %v, want it refused as bad_payload", len(got), counts.Reasons())
			}
		})
	}
}

// number spells whole numbers without an exponent.
func number(v any) any {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return v
}

// TestGpsdecode compares the JSON with that of Debian's gpsdecode on every
// recorded file.
func TestGpsdecode(t *testing.T) {
	t.Parallel()
	gpsdecode, err := exec.LookPath("gpsdecode")
	if err != nil {
		t.Skip("gpsdecode (package gpsd-clients) is not installed")
	}
	dir := testdata(t)
	var all [][]byte
	for _, pattern := range []string{"*/*.nmea", "gpsd/*.aivdm", "gpsd/*.log", "aduvenhage/*", "dma/*", "kystverket/*.nm4"} {
		files, _ := filepath.Glob(filepath.Join(dir, "ais", pattern))
		for _, f := range files {
			all = append(all, lines(t, f)...)
		}
	}
	all = append(all, lines(t, filepath.Join(dir, "ais/amsa/ais.txt.gz"))...)
	// Scaled only: the whole numbers are TestOracle's.
	compareGpsdecode(t, exec.Command(gpsdecode, "-j", "-s"), all)
}

func compareGpsdecode(t *testing.T, cmd *exec.Cmd, all [][]byte) {
	t.Helper()
	cmd.Stdin = bytes.NewReader(append(bytes.Join(all, []byte("\n")), '\n'))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	ours, _ := decodeAll(t, all, true)
	n, compared, skipped := 0, 0, 0
	differ := map[string]int{}
	s := bufio.NewScanner(bytes.NewReader(out))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		theirs := flat(s.Text())
		if theirs["class"] != `"AIS"` {
			continue
		}
		m, ok := nextLike(ours[n:], theirs)
		if ok < 0 {
			skipped++
			continue
		}
		n += ok + 1
		compared++
		for k, w := range theirs {
			if g, ok := m[k]; ok && !alike(g, w) {
				if differ[fmt.Sprintf("%v.%s", theirs["type"], k)]++; differ[fmt.Sprintf("%v.%s", theirs["type"], k)] == 1 {
					t.Logf("type %v %s: ours %v, gpsdecode's %v", theirs["type"], k, g, w)
				}
			} else if !ok && k != "device" && !(k == "shipname" && theirs["part"] == "") && theirs["type"] != "6" && theirs["type"] != "8" {
				t.Errorf("type %v: %s is missing", theirs["type"], k)
			}
		}
	}
	if compared < 38_000 {
		t.Errorf("only %d messages compared, %d of gpsdecode's have no like", compared, skipped)
	}
	// Each of these is a fault of gpsdecode 3.22 or a choice told in Decode.
	known := []string{"5.shipname", "5.destination", "7.mmsi3", "15.type1_2", "15.offset1_2", "20.offset3", "21.name", "24.vendorid", "25.data",
		"26.data", "26.radio", "26.app_id", "27.gnss", "27.status", "27.lon", "27.lat", "17.lon", "17.lat", "1.turn", "2.turn", "3.turn"}
	for _, k := range slices.Sorted(maps.Keys(differ)) {
		if !slices.Contains(known, k) {
			t.Errorf("%s differs in %d messages", k, differ[k])
		}
	}
	t.Logf("%d compared, %d without like, differences %v", compared, skipped, differ)
}

// nextLike finds the next message of ours with the same type and sender.
func nextLike(ours []decoded, theirs map[string]string) (map[string]string, int) {
	prefix := fmt.Sprintf(`{"class":"AIS","type":%s,"repeat":%s,"mmsi":%s,`, theirs["type"], theirs["repeat"], theirs["mmsi"])
	for i := range min(len(ours), 6000) {
		if strings.HasPrefix(ours[i].json, prefix) {
			if m := flat(ours[i].json); sameBody(m, theirs) {
				return m, i
			}
		}
	}
	return nil, -1
}

// sameBody guards nextLike against an earlier message of the same sender.
func sameBody(a, b map[string]string) bool {
	for _, k := range []string{"lon", "second", "timestamp", "serial", "destination", "dac", "fid", "part"} {
		if a[k] != "" && b[k] != "" && !alike(a[k], b[k]) && a["type"] != "27" && a["type"] != "17" {
			return false
		}
	}
	return true
}

func alike(a, b string) bool {
	if a == b {
		return true
	}
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return err1 == nil && err2 == nil && math.Abs(x-y) < 1.1e-6
}
