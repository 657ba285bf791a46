package faults

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// clusterVariable asks for the trials of a cluster: "1" for all of them, "ci" for a
// short one. `make cluster` sets it.
const clusterVariable = "HAIDANG_CLUSTER"

// A machine is a haidang process on a spot of its own.
type machine struct {
	*box
	spot  *spot
	name  string
	roles string // "": a whole gateway
}

// takesReadings reports whether publishers connect to it.
func (m *machine) takesReadings() bool { return m.roles == "" || strings.Contains(m.roles, "ingest") }

// A formation is a cluster: servers, machines, an InfluxDB, the load and the
// operations centre.
type formation struct {
	*trial
	ground   *ground
	nodes    nodes
	machines []*machine
	engine   *exec.Cmd
	files    string // folder of the InfluxDB
	spool    spool.Config
	before   row       // sums of the last reconciliation
	harmed   time.Time // when the harm was done
}

// formed says what a formation is like.
type formed struct {
	machines   [][2]string // name and roles
	partitions int
	publishers int
	pause      time.Duration // between two readings of a publisher
	program    string        // "": the haidang under test
}

// four is four machines with different roles; each role is there twice.
var four = formed{
	machines:   [][2]string{{"north", "ingest,console"}, {"south", "ingest,ioc"}, {"east", "rules,store"}, {"west", "rules,store,ioc"}},
	partitions: 2, publishers: 6, pause: 10 * time.Millisecond,
}

// form starts everything and waits until it works.
func form(t *testing.T, want formed) *formation {
	t.Helper()
	g := newGround(t)
	f := &formation{ground: g, nodes: newNodes(t, g, 3, func() string { return quickDir(t) }), files: t.TempDir()}
	f.spool = spool.Config{URL: f.nodes.url(), Partitions: want.partitions}
	center := newCentreAt(t, g.own())
	f.trial = &trial{centre: center, publishers: publishers(want.publishers), store: strings.Replace(freePorts(t, 1)[0], "127.0.0.1", g.own(), 1), quiet: f.settled}
	f.engine = startEngineOn(t, f.store, f.files)
	for _, m := range want.machines {
		f.machines = append(f.machines, f.newMachine(t, m[0], m[1]))
	}
	f.trial.box = f.machines[0].box
	field := f.account("field", "integrator", "--device", "count-*", "--limits", "connections=1000,messages_per_s=100000,bytes_per_s=64MiB")
	watcher := f.account("watcher", "reader")
	for _, p := range f.publishers {
		p.pause, p.user, p.secret, p.patience = want.pause, "field", field, 10*time.Second
	}
	for _, m := range f.machines {
		m.watcher, m.program = [2]string{"watcher", watcher}, want.program
		m.launch()
	}
	f.awaitMachines()
	// What comes before the centre has announced its rules for the first time is stored
	// and not evaluated (docs/cluster.md, "First start").
	f.eventually("the rules are in force in each partition", 3*time.Minute, func() bool {
		known := 0.0
		for _, m := range f.machines {
			n, _ := m.metric("haidang_rules_documents_total", `result="applied"`)
			known += n
		}
		return known >= float64(want.partitions)
	})
	return f
}

// newMachine writes the configuration of a machine.
func (f *formation) newMachine(t *testing.T, name, roles string) *machine {
	t.Helper()
	s := f.ground.join(name)
	keys := map[string]string{
		"gateway": "faults-centre", "ais": "[]", "ioc": f.centre.config(),
		"accounts": fmt.Sprintf("{file: %q}", f.accounts()),
		"spool":    fmt.Sprintf("{url: %q, replicas: 3, partitions: %d, max_bytes: 256MiB}", f.spool.URL, f.spool.Partitions),
		"influx":   fmt.Sprintf("{url: \"http://%s\", bucket: haidang, timeout: 5s}", f.store),
	}
	m := &machine{box: newBox(t, "", keys), spot: s, name: name, roles: roles}
	for _, at := range []*string{&m.mqtt, &m.console} {
		_, port, _ := strings.Cut(*at, ":")
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		if there := s.address(n); s.space != "" {
			m.rewrite(*at, there)
			*at = there
		}
	}
	if roles != "" {
		m.args = []string{"--roles", roles}
	}
	m.started = func(cmd *exec.Cmd) (func() int, error) {
		s.inside(cmd)
		return usually(cmd)
	}
	return m
}

func (f *formation) accounts() string { return filepath.Join(f.files, "accounts.jsonl") }

// awaitMachines waits until each machine is ready; of whole gateways, one.
func (f *formation) awaitMachines() {
	f.t.Helper()
	if f.machines[0].roles != "" {
		for _, m := range f.machines {
			for deadline := time.Now().Add(3 * time.Minute); ; {
				status, why := m.try("/readyz")
				if status == 200 {
					break
				}
				if time.Now().After(deadline) {
					f.t.Fatalf("%s (%s) is not ready: %s\n%s", m.name, m.roles, why, f.said())
				}
				<-time.After(20 * time.Millisecond)
			}
		}
		return
	}
	f.eventually("a gateway is ready", 60*time.Second, func() bool {
		return slices.ContainsFunc(f.machines, func(m *machine) bool { status, _ := m.try("/readyz"); return status == 200 })
	})
}

// load begins to load the machines that take readings, until unload.
func (f *formation) load() {
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	var doors []string
	for _, m := range f.machines {
		if m.takesReadings() {
			doors = append(doors, m.mqtt)
		}
	}
	for i, p := range f.publishers {
		mine := append(slices.Clone(doors[i%len(doors):]), doors[:i%len(doors)]...)
		f.loading.Go(func() { p.keep(ctx, mine...) })
	}
	f.t.Cleanup(f.unload)
}

// settled waits until all followers have been at the end for a second.
func (f *formation) settled(patience time.Duration) {
	f.t.Helper()
	since := time.Now()
	f.eventually("all followers are at the end of the logs", patience, func() bool {
		lag, samples := 0.0, 0
		for _, m := range f.machines {
			l, n := m.metric("haidang_spool_follower_lag_frames")
			lag, samples = lag+l, samples+n
		}
		if samples == 0 || lag > 0 {
			since = time.Now()
		}
		return time.Since(since) > time.Second
	})
}

// holders returns which machine has which lease.
func (f *formation) holders() map[string]*machine {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	roster, err := spool.OpenRoster(ctx, f.spool, slog.New(slog.DiscardHandler))
	if err != nil {
		f.t.Fatal(err)
	}
	defer roster.Close()
	held, err := roster.Holders(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	out := map[string]*machine{}
	for lease, holder := range held {
		for _, m := range f.machines {
			if m.cmd.Process.Pid == holder.PID {
				out[lease] = m
			}
		}
	}
	return out
}

// holder returns the machine that has most leases of a role, and waits for one.
func (f *formation) holder(role string) *machine {
	f.t.Helper()
	if f.machines[0].roles == "" {
		role = "gateway"
	}
	var found *machine
	f.eventually("somebody has "+role, 30*time.Second, func() bool {
		counts := map[*machine]int{}
		for lease, m := range f.holders() {
			if lease == role || strings.HasPrefix(lease, role+".") {
				if counts[m]++; found == nil || counts[m] > counts[found] {
					found = m
				}
			}
		}
		return found != nil
	})
	return found
}

// works waits until each device's readings since a moment are acknowledged, are in
// InfluxDB and have raised a warning that the centre has. It returns how long that
// took since then.
func (f *formation) works(since time.Time, patience time.Duration) time.Duration {
	f.t.Helper()
	waiting := map[string]bool{}
	for _, p := range f.publishers {
		waiting[p.device] = true
	}
	deadline := time.Now().Add(patience * slowness())
	for len(waiting) > 0 {
		if time.Now().After(deadline) {
			f.t.Fatalf("%v after the harm these are not heard of: %v\n%s", time.Since(since).Round(time.Millisecond), waiting, f.said())
		}
		warned := f.warnedSince(since)
		for device := range waiting {
			if !warned[device] {
				continue
			}
			points, err := queryPoints(f.store, fmt.Sprintf("SELECT count(n) FROM count WHERE device = '%s' AND time > %d", device, since.UnixNano()))
			if err == nil && len(points) > 0 {
				delete(waiting, device)
			}
		}
		<-time.After(20 * time.Millisecond)
	}
	return time.Since(since)
}

// warnedSince tells the devices of which the centre has a warning about a reading
// that was made after a moment.
func (f *formation) warnedSince(since time.Time) map[string]bool {
	c := f.centre
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]bool{}
	for i := len(c.accepted) - 1; i >= 0 && c.arrived[i].After(since); i-- {
		if w := &c.accepted[i]; w.State == telemetry.Active && w.At.After(since) {
			out[w.Device] = true
		}
	}
	return out
}

// said is the end of what everybody says, for messages.
func (f *formation) said() string {
	var b strings.Builder
	for _, m := range f.machines {
		status, why := m.try("/readyz")
		text := m.output.String()
		fmt.Fprintf(&b, "--- %s (%s), /readyz %d %s\n%s\n", m.name, m.roles, status, strings.TrimSpace(why), text[max(0, len(text)-2500):])
	}
	for i, n := range f.nodes {
		text := n.output.String()
		fmt.Fprintf(&b, "--- server n%d: %s\n%s\n", i, nodes{n}.unsettled(), text[max(0, len(text)-800):])
	}
	return b.String()
}

// reconcile stops the load, compares, and adds what came since the last time to the
// table; then the load goes on.
func (f *formation) reconcile(r row) {
	f.t.Helper()
	f.unload()
	f.nodes.settled()
	sums := f.compareAll(r)
	sums.acknowledged -= f.before.acknowledged
	sums.expected -= f.before.expected
	f.before.acknowledged += sums.acknowledged
	f.before.expected += sums.expected
	results.add(sums)
	f.load()
}

// compareAll is the trial's own reconciliation, without its line in the table.
func (f *formation) compareAll(r row) row {
	f.t.Helper()
	results.mu.Lock()
	n := len(results.rows)
	results.mu.Unlock()
	r = f.trial.reconcile(r)
	results.mu.Lock()
	results.rows = results.rows[:n]
	results.mu.Unlock()
	return r
}

// clusterMode skips the test where the trials of a cluster are not asked for, and
// reports whether they are to be short.
func clusterMode(t *testing.T) (short bool) {
	t.Helper()
	switch mode := os.Getenv(clusterVariable); mode {
	case "ci":
		return true
	case "":
		t.Skipf("set %s to ci or 1 (make cluster-ci, make cluster)", clusterVariable)
	default:
	}
	return false
}
