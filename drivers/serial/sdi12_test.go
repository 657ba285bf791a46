package serial

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/drivers/link"
	"haidang/gateway/telemetry"
)

func TestSDIStart(t *testing.T) {
	for _, c := range []struct {
		line       string
		concurrent bool
		want       string
	}{
		{"00013", false, "1s 3 true"},
		{"09999", false, "16m39s 9 true"},
		{"000112", true, "1s 12 true"},
		{"000112", false, "0s 0 false"},
		{"00013", true, "0s 0 false"},
		{"10013", false, "0s 0 false"},
		{"0", false, "0s 0 false"},
		{"", false, "0s 0 false"},
		{"0+013", false, "0s 0 false"},
	} {
		wait, n, ok := sdiStart([]byte(c.line), '0', c.concurrent)
		if got := fmt.Sprint(wait, n, ok); got != c.want {
			t.Errorf("%q: %s, want %s", c.line, got, c.want)
		}
	}
}

func TestSDIRead(t *testing.T) {
	for _, c := range []struct {
		line string
		crc  bool
		want string
		v    sdiVerdict
	}{
		{"0+3.14", false, "+3.14", sdiValues},
		{"0+3.14-2.7+0", false, "+3.14 -2.7 +0", sdiValues},
		{"0+3.14OqZ", true, "+3.14", sdiValues},
		{"0+3.15OqZ", true, "", sdiWrongCRC},
		{"0+3.14", true, "", sdiWrongCRC},
		{"0+3.14OqZ", false, "", sdiOther},
		{"1+2.7+85.2-0.2-2.7+770.5CAH", true, "", sdiOther}, // of another sensor
		{"0", false, "", sdiBare},
		{"", false, "", sdiOther},
		{"00013", false, "", sdiOther},
		{"0+", false, "", sdiOther},
		{"0+1.2.3+4", false, "", sdiOther},
		{"0+1+-2", false, "", sdiOther},
	} {
		numbers, v := sdiRead([]byte(c.line), '0', c.crc, nil)
		if got := strings.Join(numbers, " "); got != c.want || v != c.v {
			t.Errorf("%q: %s, %d, want %s, %d", c.line, got, v, c.want, c.v)
		}
	}
}

func FuzzSDI12(f *testing.F) {
	for _, line := range []string{"00013", "000112", "0+3.14OqZ", "0+3.14-2.7+0", "0", "0M!00013", "\x000+1"} {
		f.Add([]byte(line), true)
		f.Add([]byte(line), false)
	}
	f.Fuzz(func(t *testing.T, line []byte, flag bool) {
		line = sdiClean(line, "0M!")
		if wait, n, ok := sdiStart(line, '0', flag); wait < 0 || wait > 999*time.Second || n < 0 || n > maxSDIValues || ok && line[0] != '0' {
			t.Errorf("%v %d %v", wait, n, ok)
		}
		numbers, v := sdiRead(line, '0', flag, []string{"+1"})
		if len(numbers) > maxSDIValues || v != sdiValues && len(numbers) != 1 {
			t.Errorf("%q, %d", numbers, v)
		}
		for _, n := range numbers {
			if _, ok := parseNumber(n); !ok {
				t.Errorf("number %q", n)
			}
		}
	})
}

// An answer is one line of a simulated bridge, and how long it takes.
type answer struct {
	after time.Duration
	text  string
}

// simulate answers each command with the next of its answers; the last is kept.
func simulate(t *testing.T, conn net.Conn, answers map[string][][]answer) {
	asked := map[string]int{}
	var answering sync.WaitGroup
	defer answering.Wait()
	buf := make([]byte, 64)
	var command string
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		command += string(buf[:n])
		for {
			one, rest, whole := strings.Cut(command, "!")
			if !whole {
				break
			}
			command = rest
			list := answers[one+"!"]
			if len(list) == 0 {
				continue // nobody has this address
			}
			todo := list[min(asked[one], len(list)-1)]
			asked[one]++
			answering.Go(func() {
				for _, a := range todo {
					time.Sleep(a.after)
					if _, err := conn.Write([]byte(a.text + "\r\n")); err != nil {
						return
					}
				}
			})
		}
	}
}

func say(lines ...string) []answer {
	var out []answer
	for _, l := range lines {
		out = append(out, answer{20 * time.Millisecond, l})
	}
	return out
}

// bench runs a driver of the configuration against the far side for the time.
func bench(t *testing.T, c Config, d time.Duration, far func(net.Conn)) (*Driver, *shelf) {
	t.Helper()
	s := newShelf()
	driver, err := New(c, s, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	near, other := net.Pipe()
	driver.dial = func(context.Context, link.Target, link.Options) (link.Stream, error) { return near, nil }
	done := make(chan struct{})
	go func() { far(other); close(done) }()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := driver.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	other.Close()
	<-done
	return driver, s
}

func sdiConfig(sensors ...Sensor) Config {
	return Config{Name: "wells", Connect: "serial:///dev/ttyUSB1", Format: SDI12, Interval: telemetry.Duration(time.Minute), Sensors: sensors}
}

func well(address, device, command string) Sensor {
	return Sensor{Address: address, Device: device, Command: command, Values: []Value{
		{From: "1", To: "river.level_m", Unit: "mm"}, {From: "2", To: "river.water_temperature_c", Missing: []string{"-99"}},
	}}
}

// TestBridge: one sensor each with its own way of answering.
func TestBridge(t *testing.T) {
	crc := func(s string) string { c := crcOf([]byte(s)); return s + string(c[:]) }
	for name, c := range map[string]struct {
		command string
		answers map[string][][]answer
		want    string
		failed  map[string]float64
	}{
		"service request":     {"M", map[string][][]answer{"0M!": {{{0, "00302"}, {2 * time.Second, "0"}}}, "0D0!": {say("0+1500+21.5")}}, "well river level_m=1.5 water_temperature_c=21.5", nil},
		"no service request":  {"M", map[string][][]answer{"0M!": {say("00032")}, "0D0!": {say("0+1500+21.5")}}, "well river level_m=1.5 water_temperature_c=21.5", nil},
		"at once":             {"M", map[string][][]answer{"0M!": {say("00002")}, "0D0!": {say("0+1500+21.5")}}, "well river level_m=1.5 water_temperature_c=21.5", nil},
		"two pages and CRC":   {"", map[string][][]answer{"0MC!": {say("00012", "0")}, "0D0!": {say(crc("0+1500"))}, "0D1!": {say(crc("0-0.5"))}}, "well river level_m=1.5 water_temperature_c=-0.5", nil},
		"concurrent":          {"C", map[string][][]answer{"0C!": {say("000102")}, "0D0!": {say("0+1500+21.5")}}, "well river level_m=1.5 water_temperature_c=21.5", nil},
		"continuous":          {"RC0", map[string][][]answer{"0RC0!": {say(crc("0+1500+21.5"))}}, "well river level_m=1.5 water_temperature_c=21.5", nil},
		"echo":                {"M", map[string][][]answer{"0M!": {say("0M!00002")}, "0D0!": {say("0D0!", "0+1500+21.5")}}, "well river level_m=1.5 water_temperature_c=21.5", nil},
		"not there":           {"M", map[string][][]answer{"0M!": {say("00002")}, "0D0!": {say("0+1500-99.0")}}, "well river level_m=1.5", nil},
		"a wrong CRC once":    {"MC", map[string][][]answer{"0MC!": {say("00002")}, "0D0!": {say("0+1500+21.5@@@"), say(crc("0+1500+21.5"))}}, "well river level_m=1.5 water_temperature_c=21.5", map[string]float64{failCRC: 1}},
		"always a wrong CRC":  {"MC", map[string][][]answer{"0MC!": {say("00002")}, "0D0!": {say("0+1500+21.5@@@")}}, "", map[string]float64{failCRC: 9}},
		"deaf once":           {"M", map[string][][]answer{"0M!": {nil, say("00002")}, "0D0!": {say("0+1500+21.5")}}, "well river level_m=1.5 water_temperature_c=21.5", map[string]float64{failTimeout: 1}},
		"dead":                {"M", nil, "", map[string]float64{failTimeout: 3}},
		"fewer than promised": {"M", map[string][][]answer{"0M!": {say("00003")}, "0D0!": {say("0+1500+21.5")}}, "", map[string]float64{failTimeout: 3}},
		"none promised":       {"M", map[string][][]answer{"0M!": {say("00000")}}, "", map[string]float64{failAnswer: 3}},
		"another's answer":    {"M", map[string][][]answer{"0M!": {say("10002", "00002")}, "0D0!": {say("1+7+7", "0+1500+21.5")}}, "well river level_m=1.5 water_temperature_c=21.5", nil},
		// The values of the first try come while the second one is asked for.
		"late": {"M", map[string][][]answer{"0M!": {say("00002")}, "0D0!": {{{2100 * time.Millisecond, "0+9+9"}}, say("0+1500+21.5")}}, "well river level_m=1.5 water_temperature_c=21.5", map[string]float64{failTimeout: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, s := bench(t, sdiConfig(well("0", "well", c.command)), 50*time.Second, func(far net.Conn) { simulate(t, far, c.answers) })
				want := "wells link up=1"
				if c.want != "" {
					want += "\n" + c.want + "\nwell link up=1"
				}
				if got := s.lines(); c.want != "" && got != want || c.want == "" && !strings.Contains(got, "well link cause=") {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
				for _, reason := range []string{failTimeout, failAnswer, failCRC} {
					if n := testutil.ToFloat64(d.metrics.failures[reason]); n != c.failed[reason] {
						t.Errorf("%s: %v, want %v", reason, n, c.failed[reason])
					}
				}
			})
		})
	}
}

// TestBridgeOfMany: concurrent sensors measure at the same time, a dead sensor
// takes nothing from the others, measurements keep to the grid of the interval,
// and a device with two sensors is down while one of them is.
func TestBridgeOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		both := well("3", "w2", "M1")
		both.Values = []Value{{From: "1", To: "water.ph"}}
		d, s := bench(t, sdiConfig(well("0", "w0", "C"), well("1", "w1", "C"), well("2", "w2", "M"), both), 150*time.Second, func(far net.Conn) {
			simulate(t, far, map[string][][]answer{
				"0C!": {say("003002")}, "0D0!": {say("0+1000+10")},
				"1C!": {say("103002")}, "1D0!": {say("1+2000+20")},
				"2M!": {say("20002")}, "2D0!": {say("2+3000+30")},
				"3M1!": {nil, nil, nil, nil, nil, nil, say("30001")}, "3D0!": {say("3+7.5")},
			})
		})
		want := `wells link up=1
w2 river level_m=3 water_temperature_c=30
w2 link up=1
w2 link cause="no answer to 3M1! within 2s" up=0
w0 river level_m=1 water_temperature_c=10
w0 link up=1
w1 river level_m=2 water_temperature_c=20
w1 link up=1
w2 river level_m=3 water_temperature_c=30
w0 river level_m=1 water_temperature_c=10
w1 river level_m=2 water_temperature_c=20
w2 river level_m=3 water_temperature_c=30
w2 water ph=7.5
w2 link up=1
w0 river level_m=1 water_temperature_c=10
w1 river level_m=2 water_temperature_c=20`
		// The last measurement begins at 120 s; its concurrent part is over at
		// 150 s and a little.
		got := s.lines()
		if cut := strings.TrimSuffix(want, "\nw0 river level_m=1 water_temperature_c=10\nw1 river level_m=2 water_temperature_c=20"); got != want && got != cut {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if took := time.Since(began); took > 151*time.Second {
			t.Errorf("took %v", took)
		}
		_ = d
	})
}

// TestBridgeLost: a bridge that is unplugged between two measurements is
// noticed at once and takes its sensors' links down.
func TestBridgeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		d, err := New(sdiConfig(well("0", "well", "R0")), s, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		d.dial = func(context.Context, link.Target, link.Options) (link.Stream, error) { return near, nil }
		ended := make(chan error, 1)
		go func() { ended <- d.Run(t.Context()) }()
		go simulate(t, far, map[string][][]answer{"0R0!": {say("0+1500+21.5")}})
		time.Sleep(30 * time.Second) // the next measurement is after a minute
		began := time.Now()
		far.Close()
		if err := <-ended; err == nil || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		cause := `cause="read from serial:///dev/ttyUSB1?baud=9600: the other side closed the connection" up=0`
		want := "wells link up=1\nwell river level_m=1.5 water_temperature_c=21.5\nwell link up=1\nwells link " + cause + "\nwell link " + cause
		if got := s.lines(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// TestBridgeNoise: whatever comes between, what is read is right or an error.
func TestBridgeNoise(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { bridgeNoise(t, seed) })
	}
}

func bridgeNoise(t *testing.T, seed uint64) {
	crc := func(s string) string { c := crcOf([]byte(s)); return s + string(c[:]) }
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(4, seed))
		noise := []func(string) []answer{
			func(string) []answer { return nil },                                        // lost
			func(s string) []answer { return say(s, s) },                                // twice
			func(s string) []answer { return []answer{{3 * time.Second, s}} },           // late
			func(s string) []answer { return say(s[:len(s)-1]) },                        // cut
			func(s string) []answer { return say("\x00\xff~", s) },                      // after noise
			func(s string) []answer { return say("1" + s[1:]) },                         // another's
			func(s string) []answer { return say(s[:1] + "+9" + s[1:]) },                // damaged
			func(s string) []answer { return append(say("0"), answer{time.Second, s}) }, // after a service request
		}
		answers := map[string][][]answer{}
		texts := map[string]string{"0MC!": "00014", "0D0!": crc("0+1000+10"), "0D1!": crc("0+2000+20")}
		for _, command := range []string{"0MC!", "0D0!", "0D1!"} {
			text := texts[command]
			for range 4000 {
				a := say(text)
				if random.IntN(4) == 0 {
					a = noise[random.IntN(len(noise))](text)
				}
				answers[command] = append(answers[command], a)
			}
		}
		c := sdiConfig(Sensor{Address: "0", Device: "w", Values: []Value{
			{From: "1", To: "k.a"}, {From: "2", To: "k.b"}, {From: "3", To: "k.c"}, {From: "4", To: "k.d"},
		}})
		d, s := bench(t, c, 24*time.Hour, func(far net.Conn) { simulate(t, far, answers) })
		right := 0
		for line := range strings.SplitSeq(s.lines(), "\n") {
			switch {
			case line == "w k a=1000 b=10 c=2000 d=20":
				right++
			case !strings.Contains(line, " link "):
				t.Fatalf("a wrong reading: %s", line)
			}
		}
		if right < 1300 { // of 1440 in a day
			t.Errorf("%d right readings", right)
		}
		t.Logf("%d of 1440 measurements right, %v timeouts, %v wrong CRCs, %v other failures", right, testutil.ToFloat64(d.metrics.failures[failTimeout]),
			testutil.ToFloat64(d.metrics.failures[failCRC]), testutil.ToFloat64(d.metrics.failures[failAnswer]))
	})
}
