package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"haidang/gateway/telemetry"
)

// startNATS starts servers of one cluster in this process, or one that is alone; each
// may be ended with Shutdown.
func startNATS(t testing.TB, size int) (servers []*server.Server, url string) {
	t.Helper()
	ports := freePorts(t, 2*size)
	routes := strings.Join(ports[size:], ", nats://")
	for i := range size {
		text := fmt.Sprintf("server_name: n%d\nlisten: %q\njetstream: {store_dir: %q, max_file_store: 64GB}\ncluster: {name: hue, listen: %q, routes: [nats://%s]}\n",
			i, ports[i], t.TempDir(), ports[size+i], routes)
		if size == 1 {
			text, _, _ = strings.Cut(text, "cluster:") // one alone has nobody to agree with
		}
		file := filepath.Join(t.TempDir(), "nats.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		options, err := server.ProcessConfigFile(file)
		if err != nil {
			t.Fatal(err)
		}
		options.NoSigs, options.NoLog = true, true
		ns, err := server.NewServer(options)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, ns)
		go ns.Start()
		t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	}
	return servers, "nats://" + strings.Join(ports[:size], ",nats://")
}

// A countingStore is an InfluxDB that remembers the numbers of the readings that
// were written to it, and how often each came.
type countingStore struct {
	url  string
	mu   sync.Mutex
	came map[string]int // by device and number
}

func startCountingStore(t *testing.T) *countingStore {
	s := &countingStore{came: map[string]int{}}
	number := regexp.MustCompile(`(?m)^count,device=([^, ]+)[^ ]* n=(\d+)`)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		for _, m := range number.FindAllSubmatch(body, -1) {
			s.came[string(m[1])+"/"+string(m[2])]++
		}
		s.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// hasAll waits until every reading that a publisher got acknowledged was written, and
// returns how many they are.
func (s *countingStore) hasAll(t *testing.T, l *publisher) int {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	eventually(t, "all acknowledged readings are in the store", 20*time.Second, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for n := range l.acked {
			if s.came[fmt.Sprint(l.device, "/", n)] == 0 {
				return false
			}
		}
		return true
	})
	return len(l.acked)
}

// TestTwoGatewaysOneCluster runs two gateways on a cluster of three servers: the
// second stands by, says so, and goes on when the first is killed under load; a
// server is ended as well. What was acknowledged is in the store, and the
// recipient hears one warning and its end, no transition under two numbers.
func TestTwoGatewaysOneCluster(t *testing.T) {
	if os.Getenv("HAIDANG_CLUSTER") == "" {
		t.Skip("two gateways and three servers: make cluster")
	}
	servers, url := startNATS(t, 3)
	store, centre := startCountingStore(t), newRecipient(t)
	box := func() *gatewayProcess {
		g := prepare(t, fmt.Sprintf("spool: {url: %q, max_bytes: 64MiB}\nioc: [{name: ioc, webhook: {url: %q}}]\n", url, centre.url))
		g.elsewhere(store.url)
		return g
	}
	first, second := box(), box()
	first.start()
	second.launch("run", "--config", filepath.Join(second.dir, "gateway.yaml"))
	eventually(t, "the second says that it stands by", 20*time.Second, func() bool {
		status, body := second.try("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "another gateway has the log: test-box on ")
	})
	if status, _ := second.try("/healthz"); status != http.StatusOK {
		t.Errorf("the health of the second is %d", status)
	}
	if conn, err := net.Dial("tcp", second.ports.mqtt); err == nil {
		conn.Close()
		t.Error("the second takes readings")
	}

	l := &publisher{device: "load", start: time.Now().Add(-time.Hour), acked: map[int]bool{}}
	publishFor := func(g *gatewayProcess, n int, end func()) {
		stop := make(chan struct{})
		var publishing sync.WaitGroup
		publishing.Go(func() { l.publish(g.client(fmt.Sprint("c", n)), stop) })
		acknowledged := func() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.acked) }
		target := acknowledged() + n
		eventually(t, fmt.Sprintf("%d readings more are acknowledged", n), 90*time.Second, func() bool { return acknowledged() >= target })
		end()
		close(stop)
		publishing.Wait()
	}
	first.publish(first.client("river"), "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "the warning is told", 20*time.Second, func() bool { return len(centre.got()) > 0 })
	publishFor(first, 300, func() {})
	servers[0].Shutdown()
	publishFor(first, 300, func() { first.kill() })
	killed := time.Now()
	eventually(t, "the second goes on", 90*time.Second, func() bool { status, _ := second.try("/readyz"); return status == http.StatusOK })
	took := time.Since(killed)
	if took > 15*time.Second {
		t.Errorf("the second went on after %s, want 15 s at most", took)
	}
	publishFor(second, 300, func() {})
	second.publish(second.client("river"), "telemetry/kim-long/river", `{"level_m":0.4}`)
	eventually(t, "the end of the warning is told", 20*time.Second, func() bool {
		got := centre.got()
		return got[len(got)-1].State == telemetry.Cleared
	})
	// What was told just before the kill may come again, as the same transition.
	told := map[int]telemetry.Warning{}
	for _, w := range centre.got() {
		if before, again := told[w.N]; again && (w.ID != before.ID || w.State != before.State || !w.At.Equal(before.At)) {
			t.Errorf("two transitions have the number %d: %+v and %+v", w.N, before, w)
		}
		told[w.N] = w
	}
	for n := range len(told) {
		if w, ok := told[n+1]; !ok || w.ID != told[1].ID {
			t.Errorf("transition %d of the warning was not told, but %+v", n+1, w)
		}
	}
	acknowledged := store.hasAll(t, l)
	if code := second.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, second.output)
	}
	t.Logf("%d readings acknowledged, none missing; the second went on after %s", acknowledged, took.Round(10*time.Millisecond))
}
