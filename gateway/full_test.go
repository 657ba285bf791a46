package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/intake"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// elsewhere makes the store of a configuration an InfluxDB at url.
func (g *gatewayProcess) elsewhere(url string) {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, "gateway.yaml"))
	if err != nil {
		g.t.Fatal(err)
	}
	inside := fmt.Sprintf("influx: {listen: %q}", g.ports.influx)
	outside := fmt.Sprintf("influx: {url: %q, token: t, org: o, bucket: b}", url)
	if !strings.Contains(string(text), inside) {
		g.t.Fatalf("no %s in\n%s", inside, text)
	}
	g.write("gateway.yaml", strings.Replace(string(text), inside, outside, 1))
}

// fillUp publishes until the log does not even take a small reading.
func (g *gatewayProcess) fillUp() {
	g.t.Helper()
	refused := func() float64 { return g.metric("haidang_spool_refused_total", `log="readings"`) }
	for _, size := range []int{150_000, 15_000, 1_500, 1} {
		values := []string{}
		for left := size; left > 0; left -= 15_000 {
			values = append(values, fmt.Sprintf(`"w%d":%q`, len(values), strings.Repeat("x", min(left, 15_000))))
		}
		payload := "{" + strings.Join(values, ",") + "}"
		// The broker closes the connection of a client whose reading is refused.
		c := g.client(fmt.Sprint("filler-", size))
		for n, full := 0, false; !full; n++ {
			if n == 1000 {
				g.t.Fatalf("%d readings of %d bytes are accepted\n%s", n, size, g.output)
			}
			before := refused() // that the device is linked may be refused as well
			token := c.Publish("telemetry/filler/words", 1, false, payload)
			eventually(g.t, "acknowledged or refused", 10*time.Second, func() bool {
				full = !token.WaitTimeout(50*time.Millisecond) || token.Error() != nil
				return !full || refused() > before
			})
		}
		// A client that comes again would send the refused one again, and its
		// refusal would be taken for that of the next size.
		c.Disconnect(0)
		eventually(g.t, "the client is gone", 10*time.Second, func() bool { return g.metric("haidang_broker_clients") == 0 })
	}
}

func (g *gatewayProcess) runs(what string) {
	g.t.Helper()
	select {
	case <-g.ended:
		g.t.Fatalf("%s: the gateway ended: %v\n%s", what, g.err, g.output)
	default:
	}
}

// downStore is an InfluxDB elsewhere that takes nothing before it is up.
func downStore(t *testing.T) (url string, up *atomic.Bool) {
	t.Helper()
	up = new(atomic.Bool)
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(store.Close)
	return store.URL, up
}

// TestFullLog: the InfluxDB elsewhere is down and the log fills. The gateway
// refuses what comes, and reloads; it starts on the full log, and goes on
// when there is room.
func TestFullLog(t *testing.T) {
	t.Parallel()
	store, up := downStore(t)
	g := prepare(t, "spool: {max_bytes: 4MiB}\n")
	g.elsewhere(store)
	config := filepath.Join(g.dir, "gateway.yaml")
	g.launch("run", "--config", config)
	said := func(text string) func() bool {
		return func() bool { g.runs(text); return strings.Contains(g.output.String(), text) }
	}
	working := func() bool {
		_, body := g.try("/readyz")
		return body != "" && !strings.Contains(body, `"gateway"`)
	}
	eventually(t, "it works", 10*time.Second, working)
	reload := func() {
		t.Helper()
		if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	// What all followers have passed over, the first rules, is given free some time
	// after the log is full: there may be room for the same rules once more.
	for tries := 1; ; tries++ {
		g.fillUp()
		reload()
		eventually(t, "the reload is refused or done", 5*time.Second, func() bool {
			return said("reload refused")() || strings.Count(g.output.String(), "msg=reloaded") == tries
		})
		if said("reload refused")() {
			break
		}
		if tries == 3 {
			t.Fatalf("a full log takes reloads\n%s", g.output)
		}
	}
	if status, _ := g.try("/healthz"); status != http.StatusOK {
		t.Errorf("health on a full log: %d", status)
	}

	if code := g.stop(); code != exitWell {
		t.Errorf("exit code %d on a full log\n%s", code, g.output)
	}
	g.launch("run", "--config", config)
	start, document := said("the log does not take the gateway's own records"), said("the rules cannot be put in force")
	eventually(t, "it waits for room", 10*time.Second, func() bool { return start() || document() || working() })
	up.Store(true)
	eventually(t, "it works when there is room", 15*time.Second, func() bool { g.runs("room"); return working() })
	eventually(t, "a reading is acknowledged", 15*time.Second, func() bool {
		c := g.client("station")
		defer c.Disconnect(0)
		token := c.Publish("telemetry/kim-long/river", 1, false, `{"level_m":5}`)
		return token.WaitTimeout(time.Second) && token.Error() == nil
	})
	eventually(t, "raised", 5*time.Second, func() bool { return len(g.warnings("")) == 1 })
	reload()
	eventually(t, "reloaded", 5*time.Second, said("msg=reloaded"))
}

// TestLinkOnFullLog: a station that connects while the log is full, and loses what it
// sends, is linked for the rules when there is room.
func TestLinkOnFullLog(t *testing.T) {
	t.Parallel()
	store, up := downStore(t)
	g := prepare(t, "spool: {max_bytes: 4MiB}\nrules: [rules.yaml]\n")
	g.write("rules.yaml", "rules:\n  - {name: unlinked, on: link, when: up == 0, message: {vi: \"mất\", en: \"gone\"}}\n")
	g.elsewhere(store)
	g.launch("run", "--config", filepath.Join(g.dir, "gateway.yaml"))
	eventually(t, "it works", 10*time.Second, func() bool {
		_, body := g.try("/readyz")
		return body != "" && !strings.Contains(body, `"gateway"`)
	})
	standing := func() (n int) {
		for _, w := range g.warnings("") {
			if w.Device == "phu-oc" {
				n++
			}
		}
		return n
	}
	c := g.client("station")
	g.publish(c, "telemetry/phu-oc/river", `{"level_m":0.5}`)
	c.Disconnect(0)
	eventually(t, "it is gone", 5*time.Second, func() bool { return standing() == 1 })
	g.fillUp()
	c = g.client("station")
	defer c.Disconnect(0)
	owed := func() float64 { return g.metric("haidang_links_owed") }
	refused := func() float64 { return g.metric("haidang_spool_refused_total", `log="readings"`) }
	before, owing := refused(), owed()
	c.Publish("telemetry/phu-oc/river", 0, false, `{"level_m":0.6}`)
	// That the filler is gone is owed as well, and may just have been taken in the last
	// bytes: so may this.
	eventually(t, "the log refuses that it is linked", 10*time.Second, func() bool {
		return owed() > owing || owed() > 0 && refused() > before+1 || standing() == 0
	})
	up.Store(true)
	eventually(t, "it is linked when there is room", 20*time.Second, func() bool { return standing() == 0 && owed() == 0 })
}

// A fullAppender is a log without room.
type fullAppender struct {
	mu    sync.Mutex
	room  bool
	taken []telemetry.Reading
}

func (f *fullAppender) hasRoom(room bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = room
}

func (f *fullAppender) got() []telemetry.Reading {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.taken)
}

func (f *fullAppender) Append(_ context.Context, records []telemetry.Reading) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.room {
		return fmt.Errorf("append: %w", spool.ErrFull)
	}
	f.taken = append(f.taken, records...)
	return nil
}

func (f *fullAppender) AppendAt(_ time.Time, records []telemetry.Reading, done func(error)) {
	done(f.Append(context.Background(), records))
}

// TestPulseOutlivesFullLog: neither a tick nor a jump of the clock that cannot
// be written ends the gateway; the log of the program says it once, and the
// record is written when there is room.
func TestPulseOutlivesFullLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said lockedBuffer
		clock := intake.NewClock(time.Now, time.Time{})
		log := &fullAppender{}
		p := &pulse{
			name: "test-box", clock: clock, log: log,
			last: func() uint64 { return uint64(len(log.got())) }, logger: slog.New(slog.NewTextHandler(&said, nil)),
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		clock.Adopt(intake.Jump{Wall: time.Hour, Log: time.Hour}) // so the wall clock looks an hour behind
		time.Sleep(10 * time.Second)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		default:
		}
		if n := strings.Count(said.String(), "the log does not take"); n != 1 {
			t.Errorf("it says %d times that the log is full:\n%s", n, &said)
		}
		log.hasRoom(true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		kinds := []string{}
		for _, r := range log.got() {
			kinds = append(kinds, r.Kind)
		}
		if got := strings.Join(kinds, " "); !strings.HasPrefix(got, telemetry.KindClock+" "+telemetry.KindTick) {
			t.Errorf("written: %q, want the jump of the clock and ticks", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestBeginWaits: the start is written as soon as the log takes it, and a
// gateway that is stopped meanwhile says nothing of having begun.
func TestBeginWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &fullAppender{}
		p := &pulse{name: "test-box", clock: intake.NewClock(time.Now, time.Time{}), log: log, logger: slog.New(slog.DiscardHandler)}
		begun := make(chan bool, 1)
		go func() { begun <- p.begin(t.Context(), 3*time.Hour) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		log.hasRoom(true)
		if !<-begun {
			t.Error("it did not begin")
		}
		taken := log.got()
		if len(taken) != 1 || taken[0].Kind != telemetry.KindStart {
			t.Fatalf("written: %+v, want one start", taken)
		}
		// Nothing was received while it waited either.
		waited := time.Minute + time.Second
		if down, _ := taken[0].Number("down_s"); down < (3*time.Hour+waited-time.Second).Seconds() || down > (3*time.Hour+waited).Seconds() {
			t.Errorf("down for %v s, want 3 h and the minute of waiting", down)
		}
		log.hasRoom(false)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(errors.New("SIGTERM")) })
		if p.begin(ctx, 0) {
			t.Error("it began on a log without room")
		}
	})
}

// TestReplayFasterThanSmallLog: the bound of the gateway's own log is not that
// of a replay, which goes through more than it as fast as it can.
func TestReplayFasterThanSmallLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var lines strings.Builder
	const n = 400
	for i := range n {
		fmt.Fprintf(&lines, "river,device=kim-long level_m=0.5,note=%q %d\n", strings.Repeat("x", 15_000), 1_700_000_000_000_000_000+int64(i)*1_000_000)
	}
	for name, text := range map[string]string{"gateway.yaml": "spool: {max_bytes: 4MiB}\n", "lines": lines.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := replayed(t, "--format", "influx", "--config", filepath.Join(dir, "gateway.yaml"), filepath.Join(dir, "lines"))
	if got := summaryOf(text, "accepted"); got != fmt.Sprintf("%d readings", n) {
		t.Errorf("accepted %s\n%s", got, text)
	}
}
