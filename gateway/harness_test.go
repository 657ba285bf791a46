package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"haidang/gateway/telemetry"
)

// TestMain lets the test binary be haidang itself, so that whole processes can
// be started, killed and looked at.
func TestMain(m *testing.M) {
	if os.Getenv("HAIDANG_TEST_COMMAND") != "" {
		if name := os.Getenv("HAIDANG_CPUPROFILE"); name != "" { // written when the command is stopped
			if file, err := os.Create(name); err == nil && pprof.StartCPUProfile(file) != nil {
				fmt.Fprintln(os.Stderr, "no CPU profile in", name)
			}
		}
		reload := make(chan os.Signal, 1)
		signal.Notify(reload, syscall.SIGHUP)
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, func() {
			if file, err := os.Create(os.Getenv("HAIDANG_HEAPPROFILE")); err == nil { // of what lives when it is stopped
				runtime.GC()
				_ = pprof.WriteHeapProfile(file)
				_ = file.Close()
			}
			stop()
		})
		code := execute(ctx, environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, reload: reload, wall: movedClock}, os.Args[1:])
		pprof.StopCPUProfile()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// movedClock is the clock of this machine, off by what the file says that
// HAIDANG_TEST_CLOCK names, if there is one.
func movedClock() time.Time {
	now := time.Now()
	if text, err := os.ReadFile(os.Getenv("HAIDANG_TEST_CLOCK")); err == nil {
		if by, err := time.ParseDuration(string(text)); err == nil {
			return now.Add(by)
		}
	}
	return now
}

// A gatewayProcess is a haidang that runs as a process of its own.
type gatewayProcess struct {
	t      testing.TB
	dir    string // with gateway.yaml and the data folder
	ports  ports
	cmd    *exec.Cmd
	env    []string // in addition
	output *lockedBuffer
	ended  chan struct{}
	err    error // once ended
}

type ports struct{ mqtt, influx, console, nmea string }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
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

// prepare writes a configuration on free ports; more is appended to it.
func prepare(t testing.TB, more string) *gatewayProcess {
	t.Helper()
	free := freePorts(t, 4)
	g := &gatewayProcess{t: t, dir: t.TempDir(), ports: ports{free[0], free[1], free[2], free[3]}}
	text := fmt.Sprintf(`
gateway: test-box
data: %s
broker: {listen: %q}
influx: {listen: %q}
console: {listen: %q}
ais: [{name: nmea, connect: "listen://%s"}]
%s`, filepath.Join(g.dir, "data"), g.ports.mqtt, g.ports.influx, g.ports.console, g.ports.nmea, more)
	g.write("gateway.yaml", text)
	return g
}

func (g *gatewayProcess) write(name, text string) {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// start starts the process and waits until it is ready.
func (g *gatewayProcess) start() {
	g.t.Helper()
	g.launch("run", "--config", filepath.Join(g.dir, "gateway.yaml"))
	deadline := time.Now().Add(20 * time.Second)
	for {
		if status, _ := g.try("/readyz"); status == http.StatusOK {
			return
		}
		select {
		case <-g.ended:
			g.t.Fatalf("haidang ended: %v\n%s", g.err, g.output)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("not ready after 20 s\n%s", g.output)
		}
	}
}

func (g *gatewayProcess) launch(args ...string) {
	g.t.Helper()
	g.output = &lockedBuffer{}
	g.cmd = exec.Command(os.Args[0], args...)
	g.cmd.Env = append(append(os.Environ(), "HAIDANG_TEST_COMMAND=1"), g.env...)
	g.cmd.Dir = g.dir
	g.cmd.Stdout, g.cmd.Stderr = g.output, g.output
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	ended := make(chan struct{})
	g.ended = ended
	go func() { g.err = g.cmd.Wait(); close(ended) }()
	g.t.Cleanup(func() { g.kill() })
}

// kill is a power cut for the process.
func (g *gatewayProcess) kill() {
	_ = g.cmd.Process.Kill() // it may have ended
	<-g.ended
}

// stop asks the process to end and returns its exit code.
func (g *gatewayProcess) stop() int {
	g.t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
	select {
	case <-g.ended:
	case <-time.After(10 * time.Second):
		g.t.Fatalf("still running 10 s after SIGTERM\n%s", g.output)
	}
	return g.cmd.ProcessState.ExitCode()
}

// try gets a page of the console.
func (g *gatewayProcess) try(path string) (int, string) {
	response, err := http.Get("http://" + g.ports.console + path)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// warnings returns the warnings at the API; query is as in ?state=all.
func (g *gatewayProcess) warnings(query string) []telemetry.Warning {
	g.t.Helper()
	status, body := g.try("/api/v1/warnings" + query)
	var answer struct{ Warnings []telemetry.Warning }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
		g.t.Fatalf("warnings: %d %s: %v", status, body, err)
	}
	return answer.Warnings
}

// metric returns the sum of a metric's samples whose labels contain all of parts.
func (g *gatewayProcess) metric(name string, parts ...string) float64 {
	g.t.Helper()
	_, body := g.try("/metrics")
	sum := 0.0
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
	}
	return sum
}

// rows answers an InfluxQL query: the rows of the first series.
func (g *gatewayProcess) rows(query string) [][]any {
	g.t.Helper()
	response, err := http.Get("http://" + g.ports.influx + "/query?db=haidang&epoch=ns&q=" + url.QueryEscape(query))
	if err != nil {
		g.t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct {
		Error   string
		Results []struct {
			Error  string
			Series []struct{ Values [][]any }
		}
	}
	decoder := json.NewDecoder(response.Body)
	decoder.UseNumber()
	if err := decoder.Decode(&answer); err != nil || answer.Error != "" {
		g.t.Fatalf("query %s: %v %s", query, err, answer.Error)
	}
	if answer.Results[0].Error != "" {
		g.t.Fatalf("query %s: %s", query, answer.Results[0].Error)
	}
	if len(answer.Results[0].Series) == 0 {
		return nil
	}
	return answer.Results[0].Series[0].Values
}

// client connects to the broker.
func (g *gatewayProcess) client(id string) paho.Client {
	g.t.Helper()
	options := paho.NewClientOptions().AddBroker("tcp://" + g.ports.mqtt).SetClientID(id).SetAutoReconnect(false).SetConnectTimeout(5 * time.Second)
	c := paho.NewClient(options)
	if token := c.Connect(); token.WaitTimeout(5*time.Second) && token.Error() != nil {
		g.t.Fatal(token.Error())
	}
	g.t.Cleanup(func() { c.Disconnect(0) })
	return c
}

// publish sends a QoS 1 message and waits for its acknowledgement.
func (g *gatewayProcess) publish(c paho.Client, topic, payload string) {
	g.t.Helper()
	token := c.Publish(topic, 1, false, payload)
	if !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		g.t.Fatalf("publish to %s: not acknowledged: %v\n%s", topic, token.Error(), g.output)
	}
}

// patient is how long a test waits for what takes that long at most: the race detector
// makes everything several times as slow.
func patient(within time.Duration) time.Duration {
	if racing {
		return 4 * within
	}
	return within
}

// eventually waits until ok.
func eventually(t testing.TB, what string, within time.Duration, ok func() bool) {
	t.Helper()
	within = patient(within)
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, within)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A recipient is an operations centre.
type recipient struct {
	url      string
	mu       sync.Mutex
	warnings []telemetry.Warning
	keys     map[string]int
	status   int // of the answer
}

func newRecipient(t *testing.T) *recipient {
	r := &recipient{keys: map[string]int{}, status: http.StatusNoContent}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		var warning telemetry.Warning
		if err := json.NewDecoder(request.Body).Decode(&warning); err != nil {
			t.Errorf("webhook: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.status/100 == 2 {
			r.warnings = append(r.warnings, warning)
			r.keys[request.Header.Get("Idempotency-Key")]++
			if want := warning.Key(); request.Header.Get("Idempotency-Key") != want {
				t.Errorf("Idempotency-Key %q of %s", request.Header.Get("Idempotency-Key"), want)
			}
		}
		w.WriteHeader(r.status)
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *recipient) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *recipient) got() []telemetry.Warning {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]telemetry.Warning(nil), r.warnings...)
}
