package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// A box is a gateway in a process of its own, with its configuration.
type box struct {
	t       testing.TB
	dir     string // configuration
	data    string // data folder
	mqtt    string // addresses
	influx  string
	console string
	nmea    string
	env     []string
	program string    // "": the haidang under test
	args    []string  // more of them
	watcher [2]string // name and secret of an account that reads; empty: none is needed

	cmd    *exec.Cmd
	output *buffer
	ended  chan struct{}
	exit   int // code, once ended

	started func(*exec.Cmd) (wait func() int, err error) // how it is started; nil: as usual
}

// A buffer takes the output of a process, the last megabytes of it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() > 8<<20 {
		l.b.Reset()
	}
	return l.b.Write(p)
}

func (l *buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// tail returns the end of the output, for messages.
func (l *buffer) tail() string {
	text := l.String()
	return text[max(0, len(text)-6000):]
}

// freePorts returns addresses that are free now. They are below those that the
// kernel gives to outgoing connections, one of which could have it when a process
// that was killed wants it again.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for tries := 0; len(out) < n; tries++ {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.N(20_000)))
		if err != nil && tries > 100+n {
			t.Fatal(err)
		}
		if err != nil {
			continue
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

const kindsFile = `
kinds:
  - name: count
    values:
      - {name: n, unit: "1", min: 0, max: 1000000000, title: {vi: n, en: n}}
      - {name: alarm, unit: "1", min: 0, max: 10, title: {vi: a, en: a}}
`

const rulesFile = `
rules:
  - name: numbered
    on: count
    when: alarm > 0 && n >= 0
    severity: severe
    for: 0s
    flap: {raises: 0}
    message: {vi: '{n} {count(n, "1s")} {sum(n, "1s")}', en: '{n} {count(n, "1s")} {sum(n, "1s")}'}
`

// newBox writes the configuration of a gateway on free ports; a key of more
// stands in place of the same key here.
func newBox(t testing.TB, data string, more map[string]string) *box {
	t.Helper()
	free := freePorts(t, 4)
	g := &box{t: t, dir: t.TempDir(), data: data, mqtt: free[0], influx: free[1], console: free[2], nmea: free[3]}
	if g.data == "" {
		g.data = filepath.Join(g.dir, "data")
	}
	keys := map[string]string{
		"gateway": "faults-box",
		"data":    g.data,
		"broker":  fmt.Sprintf("{listen: %q}", g.mqtt),
		"influx":  fmt.Sprintf("{listen: %q}", g.influx),
		"console": fmt.Sprintf("{listen: %q}", g.console),
		"ais":     fmt.Sprintf("[{name: nmea, connect: \"listen://%s\"}]", g.nmea),
		"kinds":   "kinds.yaml",
		"devices": "devices.yaml",
		"rules":   "[rules.yaml]",
	}
	for key, value := range more {
		keys[key] = value
	}
	var text strings.Builder
	for key, value := range keys {
		if value != "" {
			fmt.Fprintf(&text, "%s: %s\n", key, value)
		}
	}
	g.write("gateway.yaml", text.String())
	g.write("kinds.yaml", kindsFile)
	g.write("rules.yaml", rulesFile)
	g.write("devices.yaml", "devices: []\n")
	return g
}

func (g *box) write(name, text string) {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// rewrite changes the configuration.
func (g *box) rewrite(from, to string) {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, "gateway.yaml"))
	if err != nil || !strings.Contains(string(text), from) {
		g.t.Fatalf("the configuration has no %q: %v", from, err)
	}
	g.write("gateway.yaml", strings.ReplaceAll(string(text), from, to))
}

// account makes an account and returns its secret.
func (g *box) account(name, role string, more ...string) string {
	g.t.Helper()
	path, err := haidangPath()
	if err != nil {
		g.t.Fatal(err)
	}
	args := append([]string{"account", "add", name, "--role", role, "--json", "--config", filepath.Join(g.dir, "gateway.yaml")}, more...)
	out, err := exec.Command(path, args...).Output()
	if err != nil {
		g.t.Fatalf("haidang %s: %v %s", strings.Join(args, " "), err, out)
	}
	var answer struct{ Secret string }
	if err := json.Unmarshal(out, &answer); err != nil || answer.Secret == "" {
		g.t.Fatalf("haidang account add says %s: %v", out, err)
	}
	return answer.Secret
}

// launch starts the process.
func (g *box) launch() {
	g.t.Helper()
	path := g.program
	if path == "" {
		var err error
		if path, err = haidangPath(); err != nil {
			g.t.Fatal(err)
		}
	}
	g.output = &buffer{}
	g.cmd = exec.Command(path, append([]string{"run", "--config", filepath.Join(g.dir, "gateway.yaml")}, g.args...)...)
	g.cmd.Env = append(os.Environ(), g.env...)
	g.cmd.Dir = g.dir
	g.cmd.Stdout, g.cmd.Stderr = g.output, g.output
	begin := g.started
	if begin == nil {
		begin = usually
	}
	wait, err := begin(g.cmd)
	if err != nil {
		g.t.Fatal(err)
	}
	cmd, ended := g.cmd, make(chan struct{})
	g.ended = ended
	go func() { g.exit = wait(); close(ended) }()
	g.t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
}

func usually(cmd *exec.Cmd) (func() int, error) {
	return func() int { _ = cmd.Wait(); return cmd.ProcessState.ExitCode() }, cmd.Start()
}

// start starts the process and waits until it is ready; it returns how long
// that took.
func (g *box) start() time.Duration {
	g.t.Helper()
	begin := time.Now()
	g.launch()
	g.awaitReady(60 * time.Second)
	return time.Since(begin)
}

func (g *box) awaitReady(patience time.Duration) {
	g.t.Helper()
	patience *= slowness()
	deadline := time.Now().Add(patience)
	for {
		if status, _ := g.try("/readyz"); status == http.StatusOK {
			return
		}
		select {
		case <-g.ended:
			g.t.Fatalf("haidang ended with %d\n%s", g.exit, g.output.tail())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			_, why := g.try("/readyz")
			g.t.Fatalf("not ready after %v: %s\n%s", patience, why, g.output.tail())
		}
	}
}

// kill is SIGKILL.
func (g *box) kill() {
	_ = g.cmd.Process.Kill() // it may have ended
	<-g.ended
}

// stop asks the process to end and returns its exit code and how long it took.
func (g *box) stop() (int, time.Duration) {
	g.t.Helper()
	begin := time.Now()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
	select {
	case <-g.ended:
	case <-time.After(30 * time.Second * slowness()):
		g.t.Fatalf("still running long after SIGTERM\n%s", g.output.tail())
	}
	return g.exit, time.Since(begin)
}

// try gets a page of the console.
func (g *box) try(path string) (int, string) {
	client := http.Client{Timeout: 5 * time.Second}
	request, err := http.NewRequest(http.MethodGet, "http://"+g.console+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	if g.watcher[0] != "" {
		request.SetBasicAuth(g.watcher[0], g.watcher[1])
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// warnings returns all warnings as they stand.
func (g *box) warnings(t testing.TB) []telemetry.Warning {
	t.Helper()
	_, body := g.try("/api/v1/warnings?state=all")
	var answer struct {
		Warnings []telemetry.Warning `json:"warnings"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("warnings: %v: %.200s", err, body)
	}
	return answer.Warnings
}

// metric returns the sum of a metric's samples whose labels contain all of
// parts, and how many samples that were.
func (g *box) metric(name string, parts ...string) (sum float64, samples int) {
	_, body := g.try("/metrics")
next:
	for line := range strings.Lines(body) {
		head, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || head != name && !strings.HasPrefix(head, name+"{") {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(head, part) {
				continue next
			}
		}
		var f float64
		fmt.Sscan(value, &f)
		sum += f
		samples++
	}
	return sum, samples
}

// settled waits until every follower has accepted all there is.
func (g *box) settled(patience time.Duration) {
	g.t.Helper()
	patience *= slowness()
	for deadline := time.Now().Add(patience); ; {
		lag, n := g.metric("haidang_spool_follower_lag_frames")
		if n > 0 && lag == 0 {
			return
		}
		if time.Now().After(deadline) {
			_, body := g.try("/metrics")
			var behind []string
			for line := range strings.Lines(body) {
				if strings.HasPrefix(line, "haidang_spool_follower_lag_frames") && !strings.HasSuffix(line, " 0\n") {
					behind = append(behind, strings.TrimSpace(line))
				}
			}
			g.t.Fatalf("not all followers are at the end of the logs within %v: %s\n%s", patience, strings.Join(behind, ", "), g.output.tail())
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (g *box) eventually(what string, within time.Duration, ok func() bool) {
	g.t.Helper()
	within *= slowness()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: not within %v\n%s", what, within, g.output.tail())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// A point is a row of an answer: a time (Unix ns) and numbers.
type point struct {
	at     int64
	values []float64
}

// points answers an InfluxQL query.
func (g *box) points(query string) ([]point, error) { return queryPoints(g.influx, query) }

func queryPoints(address, query string) ([]point, error) {
	response, err := http.Get("http://" + address + "/query?db=haidang&epoch=ns&chunked=true&chunk_size=20000&q=" + url.QueryEscape(query))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	decoder := json.NewDecoder(response.Body)
	decoder.UseNumber()
	var out []point
	for {
		var answer struct {
			Error   string
			Results []struct {
				Error  string
				Series []struct{ Values [][]any }
			}
		}
		if err := decoder.Decode(&answer); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("query %s: %w", query, err)
		}
		if answer.Error != "" {
			return nil, fmt.Errorf("query %s: %s", query, answer.Error)
		}
		for _, result := range answer.Results {
			if result.Error != "" {
				return nil, fmt.Errorf("query %s: %s", query, result.Error)
			}
			for _, series := range result.Series {
				for _, values := range series.Values {
					out = append(out, toPoint(values))
				}
			}
		}
	}
}

func toPoint(values []any) point {
	var p point
	for i, v := range values {
		number, _ := v.(json.Number)
		if i == 0 {
			p.at, _ = number.Int64()
			continue
		}
		f, _ := number.Float64()
		p.values = append(p.values, f)
	}
	return p
}
