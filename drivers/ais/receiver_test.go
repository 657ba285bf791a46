package ais

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

// A keeper is an intake in memory.
type keeper struct {
	mu       sync.Mutex
	readings []telemetry.Reading
	letters  []telemetry.DeadLetter
	sources  map[string]bool
	fail     error
	callers  sync.WaitGroup
}

func (k *keeper) Accept(source string, readings []telemetry.Reading, done func(error)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sources == nil {
		k.sources = map[string]bool{}
	}
	k.sources[source] = true
	k.readings = append(k.readings, readings...)
	if done != nil {
		err := k.fail
		k.callers.Go(func() { done(err) })
	}
}

func (k *keeper) SetAside(letter telemetry.DeadLetter, done func(error)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.letters = append(k.letters, letter)
}

// texts spells the readings, links apart from the others.
func (k *keeper) texts() (links, others []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.readings {
		if r.Kind == telemetry.KindLink {
			up, _ := r.Number("up")
			links = append(links, fmt.Sprintf("%s %v", r.Device, up))
		} else {
			others = append(others, r.Device+" "+r.Kind)
		}
	}
	return links, others
}

// waitFor polls a condition that another goroutine makes true.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s within 10 s", what)
		}
	}
}

// running starts a receiver; the returned function stops it and gives Run's
// error.
func running(t *testing.T, cfg Config, k *keeper) (*Receiver, *prometheus.Registry, func() error) {
	t.Helper()
	reg := prometheus.NewRegistry()
	r, err := New(cfg, NewFleet(nil), k, reg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var once sync.Once
	var result error
	stop := func() error {
		once.Do(func() {
			cancel()
			result = <-ended
			k.callers.Wait()
		})
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return r, reg, stop
}

func address(t *testing.T, r *Receiver) string {
	t.Helper()
	waitFor(t, "open link", func() bool { return r.Addr() != "" })
	return r.Addr()
}

const oneBoat = "!AIVDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208CQ,0*4A\r\n"

// otherBoat is a sentence of another vessel.
var otherBoat = ship{mmsi: 574000009, lat: 16.5, lon: 107.6}.line() + "\r\n"

func TestReceiverListens(t *testing.T) {
	k := &keeper{fail: errors.New("disk full")}
	r, reg, stop := running(t, Config{Name: "thuan-an", Connect: "listen://127.0.0.1:0", MaxConnections: 2}, k)
	addr := address(t, r)
	first, second := static(574000001, "AN BINH", "3", "A")
	var conns []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	waitFor(t, "two talkers", func() bool { return testutil.ToFloat64(r.m.peers) == 2 })
	// Parts on two connections do not mix; the last line lacks its end.
	fmt.Fprintf(conns[0], "%s\n%s", first, oneBoat)
	fmt.Fprintf(conns[1], "%s\n", second)
	waitFor(t, "one reading", func() bool { _, o := k.texts(); return len(o) == 1 })
	fmt.Fprintf(conns[0], "%s\n%s", second, strings.TrimSpace(otherBoat))
	waitFor(t, "two readings", func() bool { _, o := k.texts(); return len(o) == 2 })
	conns[0].Close()
	waitFor(t, "the unfinished line", func() bool { _, o := k.texts(); return len(o) == 3 })
	if links, _ := k.texts(); strings.Join(links, ",") != "thuan-an 1" {
		t.Errorf("links %v", links)
	}
	// A third may come now, a fourth not.
	for range 2 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if testutil.ToFloat64(r.m.refused) == 0 {
			waitFor(t, "a decision", func() bool { return testutil.ToFloat64(r.m.peers) == 2 || testutil.ToFloat64(r.m.refused) > 0 })
		}
		conns = append(conns, c)
	}
	waitFor(t, "a refusal", func() bool { return testutil.ToFloat64(r.m.refused) == 1 })
	for _, c := range conns {
		c.Close()
	}
	waitFor(t, "link down", func() bool { l, _ := k.texts(); return strings.Join(l, ",") == "thuan-an 1,thuan-an 0" })
	if err := stop(); err != nil {
		t.Errorf("Run: %v, want nil at the end of the context", err)
	}
	if links, _ := k.texts(); len(links) != 2 {
		t.Errorf("a shutdown is no change of the link: %v", links)
	}
	if !k.sources["ais.thuan-an"] || len(k.sources) != 1 {
		t.Errorf("sources %v", k.sources)
	}
	want := `
# HELP haidang_ais_lost_readings_total Readings that the intake could not keep.
# TYPE haidang_ais_lost_readings_total counter
haidang_ais_lost_readings_total{source="ais.thuan-an"} 3
# HELP haidang_ais_rejected_total Lines, sentences and messages refused.
# TYPE haidang_ais_rejected_total counter
`
	for i := int(None) + 1; i < reasonCount; i++ {
		n := 0
		if Reason(i) == OrphanPart {
			n = 1
		}
		want += fmt.Sprintf("haidang_ais_rejected_total{reason=%q,source=\"ais.thuan-an\"} %d\n", Reason(i), n)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "haidang_ais_lost_readings_total", "haidang_ais_rejected_total"); err != nil {
		t.Error(err)
	}
}

func TestReceiverConnects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	k := &keeper{}
	reg := prometheus.NewRegistry()
	r, err := New(Config{Name: "thuan-an", Connect: "tcp://" + l.Addr().String()}, NewFleet(nil), k, reg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	// Twice: the supervisor runs it again after the station hung up.
	for _, boat := range []string{oneBoat, otherBoat} {
		ended := make(chan error, 1)
		go func() { ended <- r.Run(t.Context()) }()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, boat)
		c.Close()
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "closed the connection") || !strings.Contains(err.Error(), l.Addr().String()) {
			t.Errorf("Run: %v, want an error that names the address", err)
		}
	}
	l.Close()
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Run without a server: %v", err)
	}
	k.callers.Wait()
	links, others := k.texts()
	if got := strings.Join(links, ","); got != "thuan-an 1,thuan-an 0,thuan-an 1,thuan-an 0" {
		t.Errorf("links %s", got)
	}
	if len(others) != 2 {
		t.Errorf("readings %v", others)
	}
}

// TestTwoReceivers: what both hear is one reading, and each counts its own.
func TestTwoReceivers(t *testing.T) {
	k, reg, fleet := &keeper{}, prometheus.NewRegistry(), NewFleet(nil)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var conns []net.Conn
	for _, name := range []string{"thuan-an", "son-tra"} {
		r, err := New(Config{Name: name, Connect: "udp://127.0.0.1:0"}, fleet, k, reg, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		c, err := net.Dial("udp", address(t, r))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	a := ship{mmsi: 574000001, lat: 16.5, lon: 107.6}
	heard := func(n int) {
		waitFor(t, "the messages", func() bool {
			total := 0.0
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					if f.GetName() == "haidang_ais_sentences_total" {
						total += m.GetCounter().GetValue()
					}
				}
			}
			return total == float64(n)
		})
	}
	for i, line := range []string{a.line(), a.north(100).line(), a.north(200).line()} {
		for j := range conns {
			fmt.Fprint(conns[(i+j)%2], line)
			heard(2*i + j + 1)
		}
	}
	cancel()
	running.Wait()
	k.callers.Wait()
	_, others := k.texts()
	if len(others) != 3 {
		t.Errorf("readings %v", others)
	}
	last := k.readings[len(k.readings)-1]
	if n, _ := last.Number("receivers"); n != 2 {
		t.Errorf("the last is %s, want two receivers", spellReading(last))
	}
}

func TestReceiverDatagrams(t *testing.T) {
	k := &keeper{}
	r, _, stop := running(t, Config{Name: "thuan-an", Connect: "udp://127.0.0.1:0"}, k)
	c, err := net.Dial("udp", address(t, r))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	first, second := static(574000001, "AN BINH", "3", "A")
	// Three sentences in two datagrams, the last without an end of line.
	fmt.Fprintf(c, "%s%s\r\n", oneBoat, first)
	fmt.Fprint(c, second)
	waitFor(t, "two readings", func() bool { _, o := k.texts(); return len(o) == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if links, _ := k.texts(); strings.Join(links, ",") != "thuan-an 1" {
		t.Errorf("links %v", links)
	}
}

func TestReceiverReadsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ais.txt.gz")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	fmt.Fprint(z, strings.Repeat(oneBoat+"$GPZDA,114702.51,27,01,2012,,*66\n", 1000))
	z.Close()
	if err := os.WriteFile(path, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	k := &keeper{}
	r, err := New(Config{Name: "old", Connect: "file://" + path}, NewFleet(nil), k, nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context()); err != nil {
		t.Errorf("Run: %v, want nil at the end of the file", err)
	}
	k.callers.Wait()
	links, others := k.texts()
	if len(others) != 1000 || strings.Join(links, ",") != "old 1,old 0" {
		t.Errorf("%d readings, links %v", len(others), links)
	}
}

// TestHugeLine sends 10 MB without a newline: it is counted and set aside once,
// and the next line is read.
func TestHugeLine(t *testing.T) {
	k := &keeper{}
	r, _, stop := running(t, Config{Name: "thuan-an", Connect: "listen://127.0.0.1:0"}, k)
	c, err := net.Dial("tcp", address(t, r))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	junk := bytes.Repeat([]byte("!AIVDM,1,1,,A,"), 10<<20/14)
	if _, err := c.Write(junk); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "\n%s!AIVDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208CQ,0*4B\n%s", oneBoat, otherBoat)
	waitFor(t, "two readings", func() bool { _, o := k.texts(); return len(o) == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if len(k.letters) != 2 || k.letters[0].Reason != "line_too_long" || len(k.letters[0].Bytes) != 4096 || !bytes.HasPrefix(junk, k.letters[0].Bytes) ||
		k.letters[1].Reason != "bad_checksum" || k.letters[1].Source != "ais.thuan-an" || k.letters[1].Detail == "" {
		t.Errorf("set aside %+v", k.letters)
	}
	if n := testutil.ToFloat64(r.m.rejected[LineTooLong]); n != 1 {
		t.Errorf("%v too long lines counted, want 1", n)
	}
}

func TestValidate(t *testing.T) {
	faults := ValidateAll([]Config{
		{Name: "a", Connect: "tcp://localhost:10110"},
		{Name: "a b", Connect: "serial:///dev/ttyUSB0?baud=38400", Idle: -1, MaxConnections: -1},
		{Name: "a"},
		{
			Name: "b", Connect: "pigeon://loft", Clock: "gps", MaxSkew: -1, Refresh: 1, Forward: []string{"tcp://127.0.0.1:1", "udp://127.0.0.1:0"},
			Thin: Thin{Every: telemetry.Duration(2 * time.Hour), Distance: "50", Heartbeat: telemetry.Duration(time.Second)},
		},
		{Name: "c", Connect: "udp://127.0.0.1:10110", Forward: []string{"udp://:10110"}},
	})
	var got []string
	for _, f := range faults {
		got = append(got, f.String())
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{`[1].name: name "a b"`, `[3].connect: connect "pigeon://loft" has the unknown scheme "pigeon"`,
		`[3].thin.every: every 2h`, `[3].thin.distance: distance "50" is not like 50m`, `[3].thin.heartbeat: heartbeat 1s`, `[3].clock: clock "gps" is not line or receipt`, "[3].max_skew: ", "[3].refresh: ",
		`[3].forward[0]: forward "tcp://127.0.0.1:1" is not like udp://127.0.0.1:10111`, "[3].forward[1]: ", `[4].forward[0]: forward "udp://:10110" is where this receiver listens`, "[1].idle: ", "[1].max_connections: ", `[2].name: name "a" is there twice`} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	if len(faults) != 14 {
		t.Errorf("%d faults:\n%s", len(faults), all)
	}
	if _, err := New(Config{Name: "x", Connect: "tcp://:1"}, NewFleet(nil), &keeper{}, nil, slog.Default()); err == nil || !strings.Contains(err.Error(), "names no host") {
		t.Errorf("New: %v", err)
	}
}

func TestDecode(t *testing.T) {
	first, second := static(574000001, `AN "BINH"`, "3", "A")
	in := oneBoat + "garbage\n" + first + "\n" + second + "\n" + strings.Repeat("x", 5000) + "\n" + first
	var out bytes.Buffer
	counts, err := Decode(strings.NewReader(in), false, &out)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := `{"class":"AIS","type":1,"repeat":0,"mmsi":371798000,"scaled":true,"status":0,"status_text":"Under way using engine","turn":"fastleft","speed":12.3,"accuracy":true,"lon":-123.395383,"lat":48.381633,"course":224.0,"heading":215,"second":33,"maneuver":0,"raim":false,"radio":34017}`
	if len(got) != 2 || got[0] != want {
		t.Errorf("got\n%s\nwant first\n%s", out.String(), want)
	}
	var ship map[string]any
	if err := json.Unmarshal([]byte(got[1]), &ship); err != nil || ship["shipname"] != `AN "BINH"` {
		t.Errorf("%v %s", err, got[1])
	}
	if counts.Lines != 6 || counts.Messages != 2 || counts.Rejected[LineTooLong] != 1 || counts.Rejected[Incomplete] != 1 || counts.Rejected[OtherSentence] != 1 {
		t.Errorf("counts %+v", counts)
	}
	if _, err := Decode(strings.NewReader(in), true, failing{}); err == nil || !strings.Contains(err.Error(), "write AIS messages: no room") {
		t.Errorf("write error: %v", err)
	}
	if _, err := Decode(strings.NewReader("\x1f\x8b\x08 no gzip"), true, &out); err == nil {
		t.Error("damaged gzip: no error")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("no room") }
