package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A clusterRun is a run of the load on a cluster.
type clusterRun struct {
	name       string
	partitions int // 0: the embedded log of one gateway
	replicas   int
	servers    int
	rate       int
}

// TestClusterLoad prints the figures of the whole path over a log in a cluster, beside
// those of the embedded one in the same run: two machines (one takes readings; one has
// the rules, the store and the centre), three servers that sync each write, an InfluxDB,
// and the load, all on this machine's cores.
func TestClusterLoad(t *testing.T) {
	text := os.Getenv(loadVariable)
	if text == "" {
		t.Skipf("set %s to the seconds of each run (make cluster-load)", loadVariable)
	}
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < 1 {
		t.Fatalf("%s is %q, expected seconds", loadVariable, text)
	}
	load, _ := os.ReadFile("/proc/loadavg") // else it is not told
	print := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	print("# %s, %s/%s, %d cores, %s, %s, commit %s, load average %.14s", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor(), time.Now().UTC().Format("2006-01-02 15:04"), commit(), load)
	print("# 50 publishers, 20 messages of QoS 1 in flight each, JSON with one value, 20 rules on each reading.")
	print("# All processes and the load share the cores of one machine, and the servers its disk: what a")
	print("# partition or a server more costs is seen here, not what it brings on a machine of its own.")
	print("# Times are milliseconds; cpu is seconds for a million readings, of haidang and of the servers.")
	print("%-30s %10s %7s %7s %9s %8s %8s %8s %8s", "run", "acked/s", "ack p50", "ack p99", "stored/s", "warn p50", "warn p99", "haidang", "nats")
	for _, run := range []clusterRun{
		{name: "embedded log"},
		{name: "1 server", servers: 1, partitions: 1, replicas: 1},
		{name: "3 servers, R1, P1", servers: 3, partitions: 1, replicas: 1},
		{name: "3 servers, R1, P2", servers: 3, partitions: 2, replicas: 1},
		{name: "3 servers, R1, P4", servers: 3, partitions: 4, replicas: 1},
		{name: "3 servers, R3, P1", servers: 3, partitions: 1, replicas: 3},
		{name: "3 servers, R3, P2", servers: 3, partitions: 2, replicas: 3},
		{name: "3 servers, R3, P4", servers: 3, partitions: 4, replicas: 3},
		{name: "embedded log, 5k/s", rate: 5000},
		{name: "3 servers, R3, P1, 5k/s", servers: 3, partitions: 1, replicas: 3, rate: 5000},
		{name: "3 servers, R3, P4, 5k/s", servers: 3, partitions: 4, replicas: 3, rate: 5000},
	} {
		t.Run(run.name, func(t *testing.T) {
			print("%-30s %s", run.name, run.measure(t, time.Duration(seconds)*time.Second))
		})
	}
}

// measure loads one cluster and returns its line of the table.
func (run clusterRun) measure(t *testing.T, lasting time.Duration) string {
	c := newCentre(t)
	address := freePorts(t, 1)[0]
	startEngine(t, address)
	more := map[string]string{"ais": "[]", "ioc": c.config(), "influx": fmt.Sprintf("{url: \"http://%s\", bucket: haidang}", address)}
	roles := []string{""}
	var servers nodes
	if run.servers > 0 {
		servers = newNodes(t, &ground{t: t}, run.servers, t.TempDir)
		more["spool"] = fmt.Sprintf("{url: %q, replicas: %d, partitions: %d, max_bytes: 2GiB}", servers.url(), run.replicas, run.partitions)
		roles = []string{"rules,store,ioc", "ingest"} // which waits for the first centre
	}
	var boxes []*box
	var processes []int
	for _, role := range roles {
		g := newBox(t, "", more)
		g.write("rules.yaml", loadRules())
		if role != "" {
			g.args = []string{"--roles", role}
		}
		g.start()
		boxes = append(boxes, g)
		processes = append(processes, g.cmd.Process.Pid)
	}
	g, last := boxes[len(boxes)-1], boxes[0]
	g.eventually("the parts are taken", 60*time.Second, func() bool {
		held := 0.0
		for _, b := range boxes {
			n, _ := b.metric("haidang_part_held")
			held += n
		}
		return run.servers == 0 || held >= float64(3*run.partitions+2)
	})
	l := &loader{address: g.mqtt, publishers: 50, window: 20, rate: run.rate, lasting: lasting, alarm: 10_000}
	if run.rate > 0 {
		l.alarm = 500 // ten a second
	}
	begin := time.Now()
	if err := l.run(); err != nil {
		t.Error(err, g.output.tail())
	}
	last.settled(3 * time.Minute)
	stored := float64(len(l.acks)) / time.Since(begin).Seconds()
	warned := c.delays(t, l.raised)
	million := float64(len(l.acks)) / 1e6
	ours := cpuOf(t, processes...) / million
	theirs := ""
	if run.servers > 0 {
		processes = nil
		for _, n := range servers {
			processes = append(processes, n.cmd.Process.Pid)
		}
		theirs = fmt.Sprintf("%.1f", cpuOf(t, processes...)/million)
	}
	for _, b := range boxes {
		b.end(t, b.cmd.Process.Pid)
	}
	return fmt.Sprintf("%10.0f %7s %7s %9.0f %8s %8s %8.1f %8s",
		float64(len(l.acks))/l.took.Seconds(), milliseconds(share(l.acks, .5)), milliseconds(share(l.acks, .99)), stored,
		milliseconds(share(warned, .5)), milliseconds(share(warned, .99)), ours, theirs)
}

// cpuOf is the CPU time of processes so far, in seconds; /proc counts hundredths.
func cpuOf(t *testing.T, processes ...int) (seconds float64) {
	t.Helper()
	for _, pid := range processes {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, field := range fields[11:13] { // utime and stime: proc(5)
			ticks, _ := strconv.ParseFloat(field, 64)
			seconds += ticks / 100
		}
	}
	return seconds
}
