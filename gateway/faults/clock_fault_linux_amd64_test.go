package faults

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// clockRules page when a device is silent or slow; a jump of the clock may not.
const clockRules = `
rules:
  - name: numbered
    on: count
    when: alarm > 0 && n >= 0
    severity: severe
    for: 0s
    flap: {raises: 0}
    message: {vi: '{n}', en: '{n}'}
  - name: silent
    on: count
    when: silent("30m")
    severity: extreme
    message: {vi: silent, en: silent}
  - name: long
    on: count
    when: n >= 0 && alarm < 9
    for: 6h
    severity: extreme
    message: {vi: long, en: long}
`

// A stamped publisher sends numbered readings without a time, one after the
// other, each when the one before it is acknowledged.
type stamped struct {
	conn  net.Conn
	in    *bufio.Reader
	n     int
	hasty map[int]bool // sent after a step of the clock, before the gateway has seen it
}

func (s *stamped) dial(t *testing.T, address string) {
	t.Helper()
	conn, err := dialMQTT(address, "stamped", 0)
	if err != nil {
		t.Fatal(err)
	}
	s.conn, s.in = conn, bufio.NewReader(conn)
}

// send sends readings for a while, with alarm in each tenth.
func (s *stamped) send(t *testing.T, n int) {
	t.Helper()
	for range n {
		alarm := 0
		if s.n%10 == 0 {
			alarm = 1
		}
		packet := appendPublish(nil, "telemetry/stamped/count", fmt.Appendf(nil, `{"n":%d,"alarm":%d}`, s.n, alarm), 1, uint16(s.n+1))
		if _, err := s.conn.Write(packet); err != nil {
			t.Fatal(err)
		}
		_ = s.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if kind, _, err := readPacket(s.in); err != nil || kind>>4 != 4 {
			t.Fatalf("no acknowledgement of %d: %v", s.n, err)
		}
		s.n++
		<-time.After(5 * time.Millisecond)
	}
}

// TestClock lets the clock of the machine jump: 7 of the issue. Nothing is
// dropped and nobody is paged by it.
func TestClock(t *testing.T) {
	times(t, 1, 1)
	clock := &falseClock{}
	tr := newTrial(t, "", 0, map[string]string{"modbus": "", "ais": "[]"})
	tr.counter, tr.vessel = nil, nil
	tr.started = clock.start
	tr.write("rules.yaml", clockRules)
	s := &stamped{hasty: map[int]bool{}}
	const some = 60
	begin := func() { tr.start(); s.dial(t, tr.mqtt) }
	jump := func(ahead time.Duration) {
		before := strings.Count(tr.output.String(), "the clock jumped")
		clock.set(ahead)
		for strings.Count(tr.output.String(), "the clock jumped") == before {
			s.hasty[s.n] = true
			s.send(t, 1)
			if len(s.hasty) > 1000 {
				t.Fatalf("the jump is not noticed\n%s", tr.output.tail())
			}
		}
		s.send(t, 2*some)
	}
	restart := func(ahead time.Duration) {
		s.conn.Close()
		if code, _ := tr.box.stop(); code != 0 {
			t.Errorf("exit code %d\n%s", code, tr.output.tail())
		}
		clock.set(ahead)
		begin()
		s.send(t, some)
	}
	begin()
	s.send(t, some)
	jump(24 * time.Hour)
	jump(0)
	restart(time.Until(time.Date(1970, 1, 1, 0, 0, 40, 0, time.UTC))) // a clock that is not set yet
	jump(0)
	leap := time.Date(2028, 2, 28, 23, 59, 58, 0, time.UTC)
	restart(time.Until(leap)) // into the 29th of February
	s.send(t, 6*some)
	restart(0)
	tr.oddDevices(t, s)
	tr.settled(20 * time.Second)
	tr.judgeClock(t, s)
	tr.box.stop()
}

// oddDevices publishes readings of devices whose clocks are wrong.
func (tr *trial) oddDevices(t *testing.T, s *stamped) {
	t.Helper()
	for i, at := range []string{"1970-01-01T00:01:00Z", "2090-06-01T00:00:00Z", "2024-02-29T23:59:59Z"} {
		packet := appendPublish(nil, fmt.Sprintf("telemetry/odd-%d/count", i), fmt.Appendf(nil, `{"n":%d,"alarm":0,"time":%q}`, i, at), 1, uint16(30000+i))
		if _, err := s.conn.Write(packet); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readPacket(s.in); err != nil {
			t.Fatal(err)
		}
	}
	tr.eventually("the readings of odd devices are stored", 10*time.Second, func() bool {
		return len(tr.query("SELECT n FROM count WHERE device =~ /odd-.*/")) == 3
	})
	now := time.Now()
	for i := range 2 {
		p := tr.query(fmt.Sprintf("SELECT n FROM count WHERE device = 'odd-%d' AND device_time_text =~ /(1970|2090)/", i))
		if len(p) != 1 || time.Unix(0, p[0].at).Before(now.Add(-time.Minute)) {
			t.Errorf("a device in 1970 or 2090: %+v, want one at the time of receipt with the device's time as a word", p)
		}
	}
	if p := tr.query("SELECT n FROM count WHERE device = 'odd-2'"); len(p) != 1 || p[0].at != time.Date(2024, 2, 29, 23, 59, 59, 0, time.UTC).UnixNano() {
		t.Errorf("a reading of a leap day: %+v", p)
	}
}

func (tr *trial) judgeClock(t *testing.T, s *stamped) {
	t.Helper()
	r := row{fault: "7 clock jumps", times: 6, acknowledged: s.n}
	seen := map[int]int{}
	for _, p := range tr.query("SELECT n FROM count WHERE device = 'stamped'") {
		seen[int(p.values[0])]++
	}
	raised := map[int]bool{}
	var missed []int
	warnings, _ := tr.centre.got()
	for _, w := range warnings {
		if w.Rule != "numbered" {
			t.Errorf("paged by a clock: %+v", w)
		}
		if w.State == telemetry.Active {
			raised[int(w.Values["n"])] = true
		}
	}
	for n := range s.n {
		if seen[n] == 0 {
			r.lost++
		}
		if seen[n] > 1 {
			r.doubled++
		}
		if n%10 == 0 && !s.hasty[n] { // behind a step back: stored, and late for 0.2 s
			r.expected++
			if !raised[n] {
				r.missed++
				missed = append(missed, n)
			}
		}
	}
	if r.lost+r.doubled+r.missed > 0 {
		t.Errorf("%d lost, %d doubled, %d warnings missed of %d: %v\n%s", r.lost, r.doubled, r.missed, s.n, missed, tr.output.tail())
	}
	r.remark = fmt.Sprintf("%d readings came between a step and its discovery", len(s.hasty))
	results.add(r)
}
