package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

// rtuLine makes a line of RTU frames on a wire.
func rtuLine(t testing.TB, connect string, w *wire, timeout time.Duration) *Line {
	cfg := Config{Name: "line", Connect: connect, Timeout: telemetry.Duration(timeout),
		Units: []Unit{{ID: 200, Device: "a", Profile: "weather-485"}}}
	line, _ := newLine(t, cfg, profilesOf(t), newShelf())
	w.on(line.buses[0])
	return line
}

// askRegisters reads on a line that does not run, without waiting for doubts to
// end, and checks every bit of what comes back.
func askRegisters(line *Line, unit byte, table string, first, count int) (wrong string, err error) {
	b, u, _, err := line.unit(fmt.Sprint(unit))
	if err != nil {
		return "", err
	}
	answer, err := b.request(context.Background(), u, span{table, first, count})
	if err != nil {
		return "", err
	}
	function := map[string]byte{Holding: 3, Input: 4, Coil: 1, Discrete: 2}[table]
	for i := range count {
		want := mark(unit, function, first+i)
		var got uint16
		if bits(table) {
			want &= 1
			got = uint16(answer[i/8] >> (i % 8) & 1)
		} else {
			got = binary.BigEndian.Uint16(answer[2*i:])
		}
		if got != want {
			return fmt.Sprintf("unit %d %s %d reads %d, not %d", unit, table, first+i, got, want), nil
		}
	}
	return "", nil
}

var rtuFaults = []fault{byteByByte, twice, staleFirst, wrongUnit, wrongFunction, shortCount, longCount, lyingCount, truncated, truncatedClose,
	garbageBefore, late, silence, reset, closed, flood, twiceLater, corrupt}

// Random faults in random order on RTU frames, which have no transaction
// numbers: never a wrong value. Answers come in the order of the requests,
// however late, or overtake each other within the time that doubts wait.
func TestRandomFaultsRTU(t *testing.T) {
	for _, connect := range []string{"rtu+tcp://h:1", "serial:///dev/ttyS1?baud=9600&parity=E"} {
		for name, inTurn := range map[string]bool{"in turn, very late": true, "overtaking": false} {
			t.Run(connect[:3]+" "+name, func(t *testing.T) {
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				synctest.Test(t, func(t *testing.T) { randomFaultsRTU(t, connect, seed, inTurn) })
			})
		}
	}
}

func randomFaultsRTU(t *testing.T, connect string, seed uint64, inTurn bool) {
	const timeout = time.Second
	random := rand.New(rand.NewPCG(seed, 1))
	latest := sortedOut(timeout) - timeout
	if inTurn {
		latest = 40 * time.Second
	}
	planned, failed, uncertain, wellMeant := right, 0, 0, 0
	w := &wire{inTurn: inTurn, random: random, think: 10 * time.Millisecond,
		fault: func() (f fault) { f, planned = planned, right; return f },
		late:  func() time.Duration { return timeout + time.Duration(random.Int64N(int64(latest))) }}
	w.server.refuse = func(_, _ byte, first, _ int) byte {
		if first%16 == 7 {
			return 2
		}
		return 0
	}
	line := rtuLine(t, connect, w, timeout)
	defer line.Close()
	var history []string
	for n := range 4000 {
		if planned = right; random.IntN(2) == 0 {
			planned = rtuFaults[random.IntN(len(rtuFaults))]
		}
		table := []string{Holding, Holding, Input, Coil, Discrete}[random.IntN(5)]
		count := []int{1, 2, 3, 20}[random.IntN(4)]
		unit, first := byte(1+random.IntN(2)), random.IntN(1000)
		start, plan := time.Now(), planned
		wrong, err := askRegisters(line, unit, table, first, count)
		history = append(history, fmt.Sprintf("%s +%s fault %d unit %d %s %d..%d: %v", start.Format("05.000"), time.Since(start), plan, unit, table, first, first+count-1, err))
		if wrong != "" {
			t.Fatalf("request %d: %s\n%s", n, wrong, join(history[max(0, len(history)-15):]))
		}
		switch {
		case errors.Is(err, errUncertain):
			uncertain++
		case err != nil && first%16 != 7:
			failed++
			if plan.harmless() {
				wellMeant++
			}
		}
		if pause := random.IntN(8); pause < 5 {
			<-time.After(time.Duration(random.IntN(1+1000*pause*pause)) * time.Millisecond)
		}
	}
	t.Logf("%d failed (%d of them although their own answer was right), %d not sent", failed, wellMeant, uncertain)
	if failed < 700 || uncertain == 0 || failed+uncertain > 3600 {
		t.Errorf("%d of 4000 requests failed and %d were not sent: the faults do not reach the client, or nothing works", failed, uncertain)
	}
}

func join(lines []string) (s string) {
	for _, line := range lines {
		s += line + "\n"
	}
	return s
}

// Each fault alone: the right values or an error, and the requests after it
// succeed, at once where they cannot be mixed up.
func TestFaultsRTU(t *testing.T) {
	for _, what := range rtuFaults {
		synctest.Test(t, func(t *testing.T) {
			w := &wire{random: rand.New(rand.NewPCG(1, 2)), think: 10 * time.Millisecond, fault: inTurn(right, what), late: func() time.Duration { return 1200 * time.Millisecond }}
			line := rtuLine(t, "rtu+tcp://h:1", w, time.Second)
			defer line.Close()
			if wrong, err := askRegisters(line, 7, Holding, 90, 3); wrong != "" || err != nil {
				t.Fatalf("before the fault: %s %v", wrong, err)
			}
			wrong, err := askRegisters(line, 7, Holding, 100, 5)
			if wrong != "" {
				t.Errorf("fault %d: wrong value: %s", what, wrong)
			}
			harmless := what.harmless() || what == garbageBefore || what == twiceLater || what == reset || what == closed || what == truncatedClose
			if (err == nil) != harmless {
				t.Errorf("fault %d: error %v, expected one: %v", what, err, !harmless)
			}
			for i := range 5 {
				if wrong, err := askRegisters(line, 7, Input, 200+i, 5); wrong != "" || err != nil {
					t.Fatalf("fault %d: request %d after it: %s %v", what, i, wrong, err)
				}
			}
		})
	}
}

// The killer of RTU: a late answer with the unit, the function and the length of
// the next request.
func TestLateAnswerRTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{inTurn: true, fault: inTurn(late), late: func() time.Duration { return 20 * time.Second }}
		line := rtuLine(t, "rtu+tcp://h:1", w, time.Second)
		defer line.Close()
		start := time.Now()
		check := func(what string, first, count int, want error) {
			t.Helper()
			wrong, err := askRegisters(line, 7, Holding, first, count)
			if wrong != "" || !errors.Is(err, want) {
				t.Errorf("%s, after %s: %s, error %v, want %v", what, time.Since(start), wrong, err, want)
			}
		}
		check("the lost one", 100, 5, os.ErrDeadlineExceeded)
		check("another of its length", 200, 5, errUncertain)
		<-time.After(15 * time.Second)
		check("another of its length, long after", 200, 5, errUncertain)
		<-time.After(3500 * time.Millisecond)
		// Answers come in turn: this one comes behind the late one, in time.
		check("another length", 200, 6, nil)
		check("the first length again", 200, 5, nil)
	})
}

// A read whose answer equals that of another one is asked again; meanwhile the
// answer to a third one comes a second time. Neither is taken for the value of
// the other.
func TestRepetitionWhileConfirming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values := map[int]uint16{10: 1, 20: 2, 30: 1, 40: 3}
		w := &wire{think: 10 * time.Millisecond}
		w.server.register = func(_, _ byte, address int) (uint16, byte) { return values[address], 0 }
		line := rtuLine(t, "rtu+tcp://h:1", w, time.Second)
		defer line.Close()
		asks := func(address int) (value uint16, requests int) {
			t.Helper()
			before := len(w.server.requests())
			b, u, _, err := line.unit("7")
			if err != nil {
				t.Fatal(err)
			}
			answer, err := b.request(t.Context(), u, span{Holding, address, 1})
			if err != nil {
				t.Fatalf("register %d: %v", address, err)
			}
			return binary.BigEndian.Uint16(answer), len(w.server.requests()) - before
		}
		for _, address := range []int{10, 20} {
			if value, requests := asks(address); value != values[address] || requests != 1 {
				t.Errorf("register %d is %d after %d requests", address, value, requests)
			}
		}
		// 30 is asked for in 5 ms and answered in 15; 20's answer comes again in
		// 25, while it is asked once more.
		w.mu.Lock()
		w.arrive(time.Now().Add(25*time.Millisecond), withCRC([]byte{7, 3, 2, 0, 2}))
		w.mu.Unlock()
		if value, requests := asks(30); value != 1 || requests != 3 {
			t.Errorf("register 30 is %d after %d requests, want 1 after 3", value, requests)
		}
		b, u, _, _ := line.unit("7")
		if _, err := b.request(t.Context(), u, span{Holding, 40, 1}); !errors.Is(err, errUncertain) {
			t.Errorf("an answer is still to come, and another register of that length is asked for: %v", err)
		}
		if _, err := b.request(t.Context(), u, span{Holding, 40, 2}); err != nil {
			t.Error(err) // it cannot be mixed up, and proves that all before it has come
		}
		<-time.After(sortedOut(time.Second) + time.Millisecond)
		if value, requests := asks(40); value != 3 || requests != 1 {
			t.Errorf("register 40 is %d after %d requests, want 3 after 1", value, requests)
		}
	})
}
