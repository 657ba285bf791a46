package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// nowhere is an address at which nobody listens. As an InfluxDB it lets what is to be
// stored wait in the log, so that a test can count it.
const nowhere = "http://127.0.0.1:1"

// servers is how many keep the log of these tests: with HAIDANG_CLUSTER three, one of
// which ends together with the machine that is killed first.
func servers() int {
	if os.Getenv("HAIDANG_CLUSTER") != "" {
		return 3
	}
	return 1
}

// stations is how many devices numbered readings are of.
const stations = 50

// writeNumbered brings readings with the numbers from..to-1 into a gateway, of the
// stations in turn.
func (g *gatewayProcess) writeNumbered(from, to int) {
	g.t.Helper()
	begin := time.Now().Add(-time.Hour)
	for from < to {
		var lines bytes.Buffer
		for range min(5000, to-from) {
			fmt.Fprintf(&lines, "count,device=hue-%02d n=%d,level_m=%.2f %d\n", from%stations, from, 1+float64(from*31%400)/100, begin.Add(time.Duration(from)*time.Millisecond).UnixNano())
			from++
		}
		response, err := http.Post("http://"+g.ports.influx+"/write?db=haidang", "text/plain", &lines)
		if err != nil {
			g.t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusNoContent {
			g.t.Fatal(response.Status)
		}
	}
}

// counted says what is wrong with the numbered readings in a log in a cluster, which
// should be 0 to n-1: once each, in order for each device, in the partition of its
// site.
func counted(t *testing.T, config spool.Config, n int) error {
	t.Helper()
	s, err := spool.Open(t.Context(), spool.Options{Dir: t.TempDir(), Config: config, Part: spool.Part{Role: spool.RoleIngest}, Gateway: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	came, last := make([]int, n), map[string]int{}
	var wrong []string
	for p := range s.Partitions() {
		err := s.ReadingsOf(p).Replay(t.Context(), func(r telemetry.Reading) {
			if r.Kind != "count" {
				return
			}
			number, _ := r.Number("n")
			k := int(number)
			if before, is := last[r.Device]; is && k <= before {
				wrong = append(wrong, fmt.Sprintf("%s: %d comes after %d", r.Device, k, before))
			}
			if at := spool.PartitionOf(r.Site, s.Partitions()); at != p || r.Source != "uplink.kim-long-box" {
				wrong = append(wrong, fmt.Sprintf("%d of %s from %s is in partition %d, want %d", k, r.Device, r.Source, p, at))
			}
			last[r.Device] = k
			came[k]++
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	lost, doubled := 0, 0
	for _, times := range came {
		lost, doubled = lost+max(0, 1-times), doubled+max(0, times-1)
	}
	if lost+doubled > 0 || len(wrong) > 0 {
		return fmt.Errorf("of %d readings %d are lost, %d doubled, %d wrong: %v", n, lost, doubled, len(wrong), wrong[:min(len(wrong), 5)])
	}
	return nil
}

// pushed waits until a field has pushed everything.
func pushed(t *testing.T, field *gatewayProcess, within time.Duration) {
	t.Helper()
	eventually(t, "everything is pushed", within, func() bool {
		return field.metric("haidang_spool_follower_lag_frames", `follower="uplink"`) == 0 && field.metric("haidang_uplink_connected") == 1
	})
}

// sent is how many readings the centre has, as the field knows.
func sent(field *gatewayProcess) int {
	return int(field.metric("haidang_uplink_sent_records_total", `log="readings"`))
}

// TestUplinkRoles pushes a backlog to a centre of machines with roles, by way of one
// that has not the part ioc. The one that has it is killed in the middle, and another
// goes on: each reading is in its partition once and in order, and a warning of the
// field is told once. HAIDANG_UPLINK_FOR=10m kills on for as long, the others as well, and freezes
// machines.
func TestUplinkRoles(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 4} {
		if racing && partitions == 1 {
			continue // four partitions run the same and more
		}
		t.Run(fmt.Sprintf("%d partitions", partitions), func(t *testing.T) {
			t.Parallel()
			pushToRoles(t, partitions)
		})
	}
}

func pushToRoles(t *testing.T, partitions int) {
	const each = 25_000
	servers, url := startNATS(t, servers())
	centre := newRecipient(t)
	machine := func(roles string) *gatewayProcess {
		g := prepare(t, fmt.Sprintf("spool: {url: %q, max_bytes: 2GiB, partitions: %d, replicas: %d}\nuplink: {accept: true}\nioc: [{name: ioc, webhook: {url: %q}}]\n", url, partitions, len(servers), centre.url))
		g.elsewhere(nowhere)
		g.called("centre")
		g.launch("run", "--config", g.dir+"/gateway.yaml", "--roles", roles)
		return g
	}
	desks := []*gatewayProcess{machine("ioc,console"), machine("ioc,console")}
	works := machine("ingest,rules,store,console")
	field := prepare(t, fmt.Sprintf("uplink: {url: \"http://%s\", heartbeat: 1s, max_rate: 32KiB/s}\n", works.ports.console))
	field.called("kim-long-box")
	field.start()
	field.writeNumbered(0, each)
	field.publish(field.client("river"), "telemetry/kim-long/river", `{"level_m":9}`)

	lasting, chance := time.Duration(0), rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	if text := os.Getenv("HAIDANG_UPLINK_FOR"); text != "" {
		lasting, _ = time.ParseDuration(text)
	}
	n, kills, freezes, begin := each, 0, 0, time.Now()
	var longest time.Duration
	for again := true; again; again = time.Since(begin) < lasting {
		n += each
		field.writeNumbered(n-each, n)
		began := sent(field)
		eventually(t, "it is pushed", time.Minute, func() bool { return sent(field) > began+5000+chance.IntN(5000) })
		var leader *gatewayProcess
		eventually(t, "somebody has the part", 20*time.Second, func() bool {
			i := slices.IndexFunc(desks, func(g *gatewayProcess) bool { return g.holds("ioc") == 1 })
			if i >= 0 {
				leader = desks[i]
			}
			return i >= 0
		})
		if len(servers) > 1 && kills+freezes == 0 {
			servers[0].Shutdown() // the others are a majority
		}
		frozen := lasting > 0 && chance.IntN(2) == 0
		if frozen {
			_ = leader.cmd.Process.Signal(syscall.SIGSTOP)
			freezes++
		} else {
			leader.kill()
			kills++
		}
		killed, before := time.Now(), sent(field)
		eventually(t, "it is pushed again", 40*time.Second, func() bool { return sent(field) > before+500 })
		longest = max(longest, time.Since(killed))
		if frozen {
			_ = leader.cmd.Process.Signal(syscall.SIGCONT)
		} else {
			leader.launch("run", "--config", leader.dir+"/gateway.yaml", "--roles", "ioc,console")
		}
		switch {
		case lasting == 0:
		case chance.IntN(3) == 0:
			works.kill()
			works.launch("run", "--config", works.dir+"/gateway.yaml", "--roles", "ingest,rules,store,console")
		case chance.IntN(2) == 0:
			field.kill()
			field.start()
		}
	}
	pushed(t, field, 2*time.Minute)
	field.publish(field.client("river-2"), "telemetry/kim-long/river", `{"level_m":0.1}`)
	eventually(t, "the warning of the field is over", 20*time.Second, func() bool {
		return slices.ContainsFunc(centre.got(), func(w telemetry.Warning) bool { return w.State == telemetry.Cleared && w.Gateway != "" })
	})
	told := map[string]string{} // a recipient may be told again of the same transition
	for _, w := range centre.got() {
		if w.Gateway == "" {
			continue // the centre's own rules see the same readings
		}
		what := fmt.Sprintf("%s %s", w.Rule, w.State)
		if key, is := told[what]; is && key != w.Key() {
			t.Errorf("%s is told as %s and as %s", what, key, w.Key())
		}
		told[what] = w.Key()
	}
	_, health := works.try("/api/v1/health")
	if !strings.Contains(health, `"gateway":"kim-long-box"`) {
		t.Errorf("the health of the centre does not tell of the field: %s", health)
	}
	for _, g := range append(desks, works, field) {
		if code := g.stop(); code != 0 {
			t.Errorf("exit code %d\n%s", code, g.output)
		}
	}
	config := spool.Config{URL: url, Replicas: len(servers), Partitions: partitions, MaxBytes: 2 << 30}
	if err := counted(t, config, n); err != nil {
		t.Errorf("after %d kills and %d times frozen: %v", kills, freezes, err)
	}
	t.Logf("%d readings once and in order; the machine that has the part ioc was killed %d times and frozen %d times; longest until it was pushed again %s; warnings told %v", n, kills, freezes, longest.Round(10*time.Millisecond), told)
}

// TestUplinkStandby pushes a backlog to a centre without roles whose log is in a
// cluster. It is killed in the middle, and the one that stands by goes on.
func TestUplinkStandby(t *testing.T) {
	if racing {
		t.Skip("TestUplinkRoles runs the same under the race detector")
	}
	t.Parallel()
	const n = 50_000
	servers, url := startNATS(t, servers())
	box := func() *gatewayProcess {
		g := prepare(t, fmt.Sprintf("spool: {url: %q, max_bytes: 1GiB, replicas: %d}\nuplink: {accept: true}\n", url, len(servers)))
		g.elsewhere(nowhere)
		g.called("centre")
		return g
	}
	first, second := box(), box()
	first.start()
	second.launch("run", "--config", second.dir+"/gateway.yaml")
	line := newLineProxy(t, first.ports.console)
	field := prepare(t, fmt.Sprintf("uplink: {url: \"http://%s\", heartbeat: 1s, max_rate: 32KiB/s}\n", line.address))
	field.called("kim-long-box")
	field.start()
	field.writeNumbered(0, n)
	eventually(t, "it is pushed", 30*time.Second, func() bool { return sent(field) > n/4 })
	if len(servers) > 1 {
		servers[0].Shutdown()
	}
	first.kill()
	killed, before := time.Now(), sent(field)
	line.lead(second.ports.console)
	eventually(t, "it is pushed again", 40*time.Second, func() bool { return sent(field) > before+500 })
	took := time.Since(killed)
	pushed(t, field, time.Minute)
	for _, g := range []*gatewayProcess{second, field} {
		if code := g.stop(); code != 0 {
			t.Errorf("exit code %d\n%s", code, g.output)
		}
	}
	if err := counted(t, spool.Config{URL: url, Replicas: len(servers), MaxBytes: 1 << 30}, n); err != nil {
		t.Error(err)
	}
	t.Logf("%d readings once and in order; the one that stood by went on after %s", n, took.Round(10*time.Millisecond))
}

// TestUplinkHandedOn pushes through a machine that only hands on, with accounts: what is
// asked there is answered as by the machine that has the part ioc, and while none has
// it the field says so.
func TestUplinkHandedOn(t *testing.T) {
	t.Parallel()
	_, url := startNATS(t, 1)
	accounts := filepath.Join(t.TempDir(), "accounts.jsonl")
	machine := func() *gatewayProcess {
		g := machineWith(t, url, nowhere, fmt.Sprintf("uplink: {accept: true}\naccounts: {file: %q}\n", accounts))
		g.called("centre")
		return g
	}
	hall, desk := machine(), machine()
	code, said, stderr := command(t, "account", "add", "kim-long-box", "--role", "gateway", "--device", "*", "--config", filepath.Join(hall.dir, "gateway.yaml"))
	if code != exitWell {
		t.Fatal(stderr)
	}
	secret := regexp.MustCompile(`[A-Z2-7]{26}`).FindString(said)
	hall.as("console")
	f := prepare(t, fmt.Sprintf("uplink: {url: \"http://%s\", heartbeat: 1s, secret: %q}\n", hall.ports.console, secret))
	f.called("kim-long-box")
	f.start()
	says := func(g *gatewayProcess, want string) {
		t.Helper()
		var out string
		eventually(t, want, 20*time.Second, func() bool {
			_, out, _ = command(t, "health", "--data", filepath.Join(g.dir, "data"))
			return strings.Contains(strings.Join(strings.Fields(out), " "), want)
		})
	}
	says(f, "NOT CONNECTED, all is kept for it the centre refuses: no machine has the part ioc now")
	desk.launch("run", "--config", filepath.Join(desk.dir, "gateway.yaml"), "--roles", "ioc")
	says(f, "uplink centre connected")
	f.writeNumbered(0, 1000)
	pushed(t, f, 20*time.Second)
	says(desk, "gateway kim-long-box up to date heard")

	post := func(what, version, secret string, body []byte) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+hall.ports.console+"/api/v1/uplink/"+what, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Haidang-Uplink", version)
		request.Header.Set("Content-Encoding", "zstd")
		request.SetBasicAuth("kim-long-box", secret)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	for _, one := range []struct {
		what, path, version, secret string
		body                        []byte
		status                      int
		reason                      string
	}{
		{"a body as large as may be", "readings", "1", secret, make([]byte, 1<<20), 400, `"reason":"body"`},
		{"a larger one", "readings", "1", secret, make([]byte, 1<<20+1), 413, `"reason":"too_large"`},
		{"another version", "hello", "2", secret, nil, 400, `"reason":"version"`},
		{"another gateway", "hello", "1", secret, []byte(`{"gateway":"phu-oc-box","epoch":"e"}`), 403, `"reason":"name"`},
		{"another secret", "hello", "1", "wrong", nil, 401, "unknown account"},
	} {
		if status, text := post(one.path, one.version, one.secret, one.body); status != one.status || !strings.Contains(text, one.reason) {
			t.Errorf("%s: %d %s", one.what, status, text)
		}
	}
	for _, g := range []*gatewayProcess{f, hall, desk} {
		if code := g.stop(); code != 0 {
			t.Errorf("exit code %d\n%s", code, g.output)
		}
	}
	if err := counted(t, spool.Config{URL: url, Replicas: 1, Partitions: 2, MaxBytes: 64 << 20}, 1000); err != nil {
		t.Error(err)
	}
}
