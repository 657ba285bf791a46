package faults

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// loadVariable asks for the load: a number is how many seconds each run lasts.
// `make load` sets it.
const loadVariable = "HAIDANG_LOAD"

// loadRules are twenty rules that look at each reading. One of them raises the
// alarms.
func loadRules() string {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range 19 {
		fmt.Fprintf(&b, "  - {name: r%d, on: count, when: n > %d && n < %d}\n", i, 900_000_000+i, 900_000_010+i)
	}
	fmt.Fprintf(&b, "  - {name: alarm, on: count, when: n >= %d && n < 900000000, severity: severe, for: 0s, flap: {raises: 0}, message: {vi: a, en: a}}\n", alarmFrom)
	return b.String()
}

// A run of the load.
type loadRun struct {
	name   string
	apart  bool // InfluxDB's engine is in a second process
	slow   bool // each fsync takes 5 ms more
	rate   int
	memory string // GOMEMLIMIT; "": what haidang chooses
}

// TestLoad prints the figures of the whole path, each run with fresh processes:
// 50 publishers, 20 messages each in flight, JSON, 20 rules on each reading, the
// load on the same cores. Beside them Mosquitto's rate under the same load.
func TestLoad(t *testing.T) {
	text := os.Getenv(loadVariable)
	if text == "" {
		t.Skipf("set %s to the seconds of each run (make load)", loadVariable)
	}
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < 1 {
		t.Fatalf("%s is %q, expected seconds", loadVariable, text)
	}
	lasting := time.Duration(seconds) * time.Second
	print := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	print("# %s, %s/%s, %d cores, %s, %s, commit %s", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor(), time.Now().UTC().Format("2006-01-02 15:04"), commit())
	print("# 50 publishers, 20 messages of QoS 1 in flight each, JSON with one value, 20 rules on each")
	print("# reading; the load runs on the same cores. Times are milliseconds; warning is from the")
	print("# publisher's socket to the webhook; backlog is what InfluxDB lacked at the end of the load.")
	print("%-36s %10s %7s %7s %9s %8s %8s %9s %9s %8s %7s", "run", "acked/s", "ack p50", "ack p99", "stored/s", "warn p50", "warn p99", "backlog s", "cpu s/M", "peak MiB", "engine")
	if address := mosquitto(t); address != "" {
		l := &loader{address: address, publishers: 50, window: 20, lasting: lasting}
		if err := l.run(); err != nil {
			t.Error(err)
		}
		print("%-36s %10.0f %7s %7s", "mosquitto, nothing kept", float64(len(l.acks))/l.took.Seconds(), milliseconds(share(l.acks, .5)), milliseconds(share(l.acks, .99)))
	}
	for _, run := range []loadRun{
		{name: "engine apart, 160 MiB", apart: true, memory: "160MiB"},
		{name: "engine apart", apart: true},
		{name: "embedded, 320 MiB", memory: "320MiB"},
		{name: "embedded"},
		{name: "embedded, 20k/s", rate: 20_000},
		{name: "engine apart, 20k/s", apart: true, rate: 20_000},
		{name: "embedded, fsync +5 ms", slow: true},
		{name: "engine apart, fsync +5 ms", apart: true, slow: true},
		{name: "embedded, 20k/s, fsync +5 ms", rate: 20_000, slow: true},
		{name: "engine apart, 20k/s, fsync +5 ms", apart: true, rate: 20_000, slow: true},
	} {
		t.Run(run.name, func(t *testing.T) {
			if run.slow {
				needStrace(t)
			}
			print("%-36s %s", run.name, run.measure(t, lasting))
		})
	}
}

// measure loads one gateway and returns its line of the table.
func (run loadRun) measure(t *testing.T, lasting time.Duration) string {
	more := map[string]string{"ais": "[]"}
	c := newCentre(t)
	more["ioc"] = c.config()
	var engine *exec.Cmd
	if run.apart {
		address := freePorts(t, 1)[0]
		engine = startEngine(t, address)
		more["influx"] = fmt.Sprintf("{url: \"http://%s\", bucket: haidang}", address)
	}
	g := newBox(t, "", more)
	g.write("rules.yaml", loadRules())
	if run.memory != "" {
		g.env = append(g.env, "GOMEMLIMIT="+run.memory)
	}
	if run.slow {
		g.slowDisk(5 * time.Millisecond)
	}
	g.start()
	pid := g.process(t)
	l := &loader{address: g.mqtt, publishers: 50, window: 20, rate: run.rate, lasting: lasting, alarm: 10_000}
	if run.rate > 0 {
		l.alarm = 1000 // twenty a second
	}
	begin := time.Now()
	if err := l.run(); err != nil {
		t.Error(err, g.output.tail())
	}
	lag, _ := g.metric("haidang_spool_follower_lag_seconds", `log="readings"`, `follower="influx"`)
	g.settled(3 * time.Minute)
	stored := float64(len(l.acks)) / time.Since(begin).Seconds()
	cpu, _ := g.metric("process_cpu_seconds_total")
	warned := c.delays(t, l.raised)
	beside := ""
	if engine != nil {
		beside = fmt.Sprint(peakMiB(t, engine.Process.Pid))
	}
	line := fmt.Sprintf("%10.0f %7s %7s %9.0f %8s %8s %9.1f %9.1f %8d %7s",
		float64(len(l.acks))/l.took.Seconds(), milliseconds(share(l.acks, .5)), milliseconds(share(l.acks, .99)), stored,
		milliseconds(share(warned, .5)), milliseconds(share(warned, .99)), lag, cpu/float64(len(l.acks))*1e6, peakMiB(t, pid), beside)
	g.end(t, pid)
	return line
}

// delays returns how long each alarm took to the centre, sorted.
func (c *centre) delays(t *testing.T, raised []time.Time) []time.Duration {
	t.Helper()
	var out []time.Duration
	came := func() (n int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i := range c.accepted {
			if c.accepted[i].State == telemetry.Active {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(20 * time.Second); came() < len(raised) && time.Now().Before(deadline); {
		<-time.After(20 * time.Millisecond)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.accepted {
		w := &c.accepted[i]
		if k := int(math.Round(w.Values["n"])) - alarmFrom; w.State == telemetry.Active && k >= 0 && k < len(raised) {
			out = append(out, c.arrived[i].Sub(raised[k]))
		}
	}
	if len(out) != len(raised) {
		t.Errorf("%d of %d alarms reached the centre", len(out), len(raised))
	}
	slices.Sort(out)
	return out
}

// backlogBytes is how much is in the log that TestLoadBacklog opens.
const backlogBytes = 2 << 30

// TestLoadBacklog fills the log with 2 GiB while InfluxDB is away, kills the
// gateway, and prints how long it takes to start, how fast the backlog is stored
// while readings come in, and how long warnings take meanwhile.
func TestLoadBacklog(t *testing.T) {
	if os.Getenv(loadVariable) == "" {
		t.Skipf("set %s to the seconds of each run (make load)", loadVariable)
	}
	address, begone := busy(t)
	c := newCentre(t)
	g := newBox(t, "", map[string]string{"ais": "[]", "ioc": c.config(), "spool": "{max_bytes: 6GiB}", "influx": fmt.Sprintf("{url: \"http://%s\", bucket: haidang}", address)})
	g.write("rules.yaml", loadRules())
	g.start()
	l := &loader{address: g.mqtt, publishers: 50, window: 20, lasting: 4 * time.Second, pad: strings.Repeat("x", 1000)}
	sent := 0
	for bytes, known := 0.0, 1; bytes < backlogBytes; bytes, known = g.metric("haidang_spool_log_bytes", `log="readings"`) {
		if err := l.run(); err != nil {
			t.Fatal(err, g.output.tail())
		}
		if known == 0 {
			t.Fatal("haidang_spool_log_bytes is not told")
		}
		sent += len(l.acks)
		l.acks = nil
	}
	g.kill()
	opened := g.start()
	begone()
	startEngine(t, address)
	stored := func() float64 {
		points, err := queryPoints(address, "SELECT count(n) FROM count")
		if err != nil || len(points) == 0 {
			return 0
		}
		return points[0].values[0]
	}
	g.eventually("the backlog is being stored", 60*time.Second, func() bool { return stored() > 0 })
	before, begin := stored(), time.Now()
	paced := &loader{address: g.mqtt, publishers: 50, window: 20, rate: 5000, lasting: 20 * time.Second, alarm: 250}
	if err := paced.run(); err != nil {
		t.Error(err)
	}
	rate := (stored() - before) / time.Since(begin).Seconds()
	warned := c.delays(t, paced.raised)
	fmt.Printf("# 2 GiB of backlog, %d readings of 1 KB, killed: ready after %s ms; %.0f readings/s were stored while 5,000 readings/s came in; warnings meanwhile p50 %s ms, p99 %s ms; peak %d MiB\n",
		sent, milliseconds(opened), rate, milliseconds(share(warned, .5)), milliseconds(share(warned, .99)), g.peakMiB(t))
	if opened > 5*time.Second {
		t.Errorf("2 GiB of backlog were open after %v, want 5 s", opened)
	}
	if rate < 1.2*float64(paced.rate) {
		t.Errorf("%.0f readings/s were stored while %d/s came in: the backlog does not fall", rate, paced.rate)
	}
	g.kill()
}

// busy is an InfluxDB that is there and takes nothing, until it is told to go.
func busy(t *testing.T) (address string, begone func()) {
	door := newStore(t, "")
	door.misbehave(status(http.StatusServiceUnavailable, "", ""))
	address = freePorts(t, 1)[0]
	server := &http.Server{Addr: address, Handler: door}
	served := make(chan error, 1)
	go func() { served <- server.ListenAndServe() }()
	begone = func() { server.Close(); <-served; served <- nil }
	t.Cleanup(begone)
	awaitListener(t, address)
	return address, begone
}

// slowDisk starts the process under strace, which lets each fsync return later
// by so much; with a filter in the kernel no other call is stopped.
func (g *box) slowDisk(by time.Duration) {
	const calls = "fsync,fdatasync,sync_file_range"
	g.started = func(cmd *exec.Cmd) (func() int, error) {
		path, err := exec.LookPath("strace")
		if err != nil {
			return nil, err
		}
		cmd.Args = append([]string{path, "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e", "trace=" + calls,
			"-e", fmt.Sprintf("inject=%s:delay_exit=%d", calls, by.Microseconds())}, cmd.Args...)
		cmd.Path = path
		return usually(cmd)
	}
}

func needStrace(t *testing.T) {
	t.Helper()
	out, err := exec.Command("strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_exit=1", "true").CombinedOutput()
	if err != nil {
		t.Skipf("a slow disk is played with strace (apt-get install strace), which does not work here: %v %s", err, out)
	}
}

// process is the process id of haidang itself: where it is traced, that of the
// child.
func (g *box) process(t *testing.T) int {
	t.Helper()
	if g.started == nil {
		return g.cmd.Process.Pid
	}
	text, err := os.ReadFile(filepath.Join(g.data, "spool", "lock"))
	pid, err2 := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || err2 != nil {
		t.Fatalf("the lock of the log names no process: %q: %v", text, err)
	}
	return pid
}

// end ends haidang, and with it what traces it.
func (g *box) end(t *testing.T, pid int) {
	t.Helper()
	_ = syscall.Kill(pid, syscall.SIGTERM)
	select {
	case <-g.ended:
	case <-time.After(30 * time.Second):
		t.Errorf("still running 30 s after SIGTERM\n%s", g.output.tail())
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// processor names the CPU.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // else it has no name
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, " \t:\n")
		}
	}
	return "unknown CPU"
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
