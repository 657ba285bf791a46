package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"haidang/gateway/telemetry"
)

// machineWith prepares a gateway process of a centre with roles; its log is at url,
// its InfluxDB is store.
func machineWith(t *testing.T, url, store, more string) *gatewayProcess {
	t.Helper()
	g := prepare(t, fmt.Sprintf("spool: {url: %q, max_bytes: 64MiB, partitions: 2, replicas: 1}\n%s", url, more))
	g.elsewhere(store)
	return g
}

// as starts the process with roles and waits until it is ready.
func (g *gatewayProcess) as(roles string) {
	g.t.Helper()
	g.launch("run", "--config", filepath.Join(g.dir, "gateway.yaml"), "--roles", roles)
	g.t.Cleanup(func() {
		if g.t.Failed() {
			g.t.Logf("the machine with the roles %s:\n%s", roles, g.output)
		}
	})
	deadline := time.Now().Add(patient(30 * time.Second))
	for {
		status, body := g.try("/readyz")
		if status == http.StatusOK {
			return
		}
		select {
		case <-g.ended:
			g.t.Fatalf("haidang ended: %v\n%s", g.err, g.output)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("not ready with the roles %s after 30 s: %s\n%s", roles, body, g.output)
		}
	}
}

// machine asks a machine how it is; the console of the centre is asked as ever.
func (g *gatewayProcess) machine() (h health) {
	g.t.Helper()
	status, body := g.try(machinePath)
	if status != http.StatusOK {
		_, body = g.try("/api/v1/health")
	}
	_ = json.Unmarshal([]byte(body), &h) // between the front and the console there is no answer
	return h
}

// holds counts the parts of a role that a machine has.
func (g *gatewayProcess) holds(role string) (n int) {
	for _, p := range g.machine().Parts {
		if p.Here && strings.HasPrefix(p.Part, role) {
			n++
		}
	}
	return n
}

// TestRolesApart runs a centre as two processes: one takes in, evaluates and stores,
// the other is the centre and shows it. A warning is raised, acknowledged and
// cleared across them.
func TestRolesApart(t *testing.T) {
	t.Parallel()
	_, url := startNATS(t, 1)
	store, centre := startCountingStore(t), newRecipient(t)
	field := machineWith(t, url, store.url, "")
	text, err := os.ReadFile(filepath.Join(field.dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	field.write("gateway.yaml", strings.Replace(string(text), "influx: {", fmt.Sprintf("influx: {listen: %q, ", field.ports.influx), 1))
	desk := machineWith(t, url, store.url, fmt.Sprintf("ioc: [{name: ioc, webhook: {url: %q}}]\n", centre.url))
	field.launch("run", "--config", filepath.Join(field.dir, "gateway.yaml"), "--roles", "ingest,rules,store")
	eventually(t, "nothing is taken in before there are rules", 20*time.Second, func() bool {
		status, body := field.try("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "start a machine with the role ioc")
	})
	desk.as("ioc,console")
	eventually(t, "the other machine is ready", 20*time.Second, func() bool { status, _ := field.try("/readyz"); return status == http.StatusOK })
	eventually(t, "the parts are taken", 20*time.Second, func() bool {
		return field.holds("rules") == 2 && field.holds("store") == 2
	})
	c := field.client("river")
	heard := make(chan string, 16)
	if token := c.Subscribe("warnings/#", 1, func(_ paho.Client, m paho.Message) { heard <- m.Topic() }); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	field.publish(c, "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "the warning is told", 20*time.Second, func() bool { return len(centre.got()) > 0 })
	select {
	case topic := <-heard:
		if !strings.HasPrefix(topic, "warnings/kim-long/") {
			t.Errorf("a warning at %s", topic)
		}
	case <-time.After(10 * time.Second):
		t.Error("the clients of the machine that takes in do not hear the warning")
	}
	response, err := http.Post("http://"+field.ports.influx+"/write?db=haidang", "text/plain", strings.NewReader("river,device=kim-long level_m=0.4\n"))
	if err != nil || response.StatusCode != http.StatusNoContent {
		t.Fatalf("/write: %v %v", response, err)
	}
	response.Body.Close()
	eventually(t, "its end is told", 20*time.Second, func() bool {
		got := centre.got()
		return got[len(got)-1].State == telemetry.Cleared
	})
	eventually(t, "the machine knows where the centre is", 20*time.Second, func() bool { return field.machine().Centre != "" })
	refusesChanges(t, field, desk)
	if code := field.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, field.output)
	}
	if code := desk.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, desk.output)
	}
}

// refusesChanges wants what people change to be changed where the part ioc is: there
// alone it is shared.
func refusesChanges(t *testing.T, field, desk *gatewayProcess) {
	t.Helper()
	add := func(g *gatewayProcess) (int, string) {
		code, _, stderr := command(t, "account", "add", "lan", "--role", "reader", "--config", filepath.Join(g.dir, "gateway.yaml"))
		return code, stderr
	}
	code, said := add(field)
	wants(t, "an account where the part ioc is not", said, "nothing was changed", "the machine that has the part ioc, test-box on ", "http://"+desk.ports.console, "roles ingest, rules, store")
	if _, err := os.Stat(filepath.Join(field.dir, "data", "accounts.jsonl")); code != exitFailed || !os.IsNotExist(err) {
		t.Errorf("exit code %d, %v", code, err)
	}
	code, _, said = command(t, "devices", "set", "kim-long", "alarm1_m=1.2", "--why", "test", "--data", filepath.Join(field.dir, "data"))
	wants(t, "a device where the part ioc is not", said, "this machine has the roles ingest, rules, store", "the console is at http://"+desk.ports.console)
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if code, said := add(desk); code != exitWell {
		t.Errorf("on the centre: exit code %d\n%s", code, said)
	}
}

// TestSetBack: a machine whose clock is set back by over a minute ends with a line that
// says so, whether or not its cluster is there; by less it goes on.
func TestSetBack(t *testing.T) {
	t.Parallel()
	g := prepare(t, "spool: {url: nats://127.0.0.1:1}\n")
	clock := filepath.Join(t.TempDir(), "clock")
	move := func(by string) {
		if err := errors.Join(os.WriteFile(clock+".new", []byte(by), 0o600), os.Rename(clock+".new", clock)); err != nil {
			t.Fatal(err)
		}
	}
	g.env = []string{"HAIDANG_TEST_CLOCK=" + clock}
	g.launch("run", "--config", filepath.Join(g.dir, "gateway.yaml"), "--roles", "ingest")
	answers := func() bool { status, _ := g.try("/healthz"); return status == http.StatusOK }
	eventually(t, "the machine answers", 20*time.Second, answers)
	move("-50s")
	for deadline := time.Now().Add(5 * lookEvery); time.Now().Before(deadline); {
		if !answers() {
			t.Fatalf("it ended after its clock was set back by 50 s\n%s", g.output)
		}
	}
	move("-90s")
	select {
	case <-g.ended:
	case <-time.After(20 * time.Second):
		t.Fatalf("it runs on with a clock that was set back\n%s", g.output)
	}
	if code := g.cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit code %d, want %d: systemd starts it again", code, exitFailed)
	}
	wants(t, "its last words", g.output.String(), errSetBack.Error()+" (-1m")
}

// TestAccountsElsewhere: where nothing runs the configuration says where accounts are
// changed.
func TestAccountsElsewhere(t *testing.T) {
	for roles, want := range map[string]int{"": exitWell, "roles: [rules, ioc]\n": exitWell, "roles: [ingest, console]\n": exitFailed, "roles: [ingest]\naccounts: {file: own.jsonl}\n": exitWell} {
		dir := inFolder(t, map[string]string{"gateway.yaml": roles})
		t.Chdir(dir)
		code, _, stderr := command(t, "account", "add", "lan", "--role", "reader", "--config", "gateway.yaml")
		if code != want || want == exitFailed && !strings.Contains(stderr, "accounts are changed on the machine that has the part ioc; this machine (roles ingest, console)") {
			t.Errorf("%q: exit code %d, want %d\n%s", roles, code, want, stderr)
		}
	}
}

// TestClusterRolesTakeOver runs a centre on three servers and five processes, and kills a
// machine of each kind under load, one after the other: what was acknowledged is in
// the store, each transition has one number, and every part goes on within 15 s.
func TestClusterRolesTakeOver(t *testing.T) {
	if os.Getenv("HAIDANG_CLUSTER") == "" {
		t.Skip("five machines and three servers: make cluster")
	}
	_, url := startNATS(t, 3)
	store, centre := startCountingStore(t), newRecipient(t)
	more := fmt.Sprintf("ioc: [{name: ioc, webhook: {url: %q}}]\n", centre.url)
	machine := func(roles string) *gatewayProcess {
		g := prepare(t, fmt.Sprintf("spool: {url: %q, max_bytes: 64MiB, partitions: 2}\n%s", url, more))
		g.elsewhere(store.url)
		g.as(roles)
		return g
	}
	desk := machine("ioc,console")
	gate := machine("ingest")
	works := []*gatewayProcess{machine("rules,store"), machine("rules,store")}
	spare := machine("ioc,console")
	parts := []string{"rules.0", "rules.1", "store.0", "store.1", "ioc", "post.0", "post.1"}
	missing := func(among ...*gatewayProcess) (gone []string) {
		held := map[string]bool{}
		for _, g := range among {
			for _, p := range g.machine().Parts {
				held[p.Part] = held[p.Part] || p.Here
			}
		}
		for _, p := range parts {
			if !held[p] {
				gone = append(gone, p)
			}
		}
		return gone
	}
	eventually(t, "all parts are taken", 20*time.Second, func() bool { return len(missing(desk, works[0], works[1], spare)) == 0 })

	l := &publisher{device: "load", start: time.Now().Add(-time.Hour), acked: map[int]bool{}}
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() { l.publish(gate.client("load"), stop) })
	river := gate.client("river")
	want := map[telemetry.State]int{}
	level := func(metres float64, state telemetry.State) {
		gate.publish(river, "telemetry/kim-long/river", fmt.Sprintf(`{"level_m":%v}`, metres))
		want[state]++
		eventually(t, fmt.Sprintf("the warning is %s at %v m", state, metres), 30*time.Second, func() bool {
			keys := map[string]bool{} // a centre that has taken over may tell once more what was told last
			for _, w := range centre.got() {
				if w.State == state {
					keys[w.Key()] = true
				}
			}
			return len(keys) >= want[state]
		})
	}
	level(3.62, telemetry.Active)

	works[0].kill()
	killed := time.Now()
	eventually(t, "the other machine has all partitions", 30*time.Second, func() bool { return len(missing(desk, works[1], spare)) == 0 })
	took := time.Since(killed)
	level(0.4, telemetry.Cleared)
	level(3.62, telemetry.Active)

	desk.kill()
	killed = time.Now()
	eventually(t, "the spare machine is the centre", 30*time.Second, func() bool { return len(missing(works[1], spare)) == 0 })
	tookCentre := time.Since(killed)
	level(0.4, telemetry.Cleared)
	for _, took := range []time.Duration{took, tookCentre} {
		if took > 15*time.Second {
			t.Errorf("another went on after %s, want 15 s at most", took)
		}
	}
	close(stop)
	publishing.Wait()
	told := map[string]telemetry.Warning{}
	for _, w := range centre.got() {
		if before, again := told[w.Key()]; again && (w.State != before.State || !w.At.Equal(before.At)) {
			t.Errorf("two transitions are %s: %+v and %+v", w.Key(), before, w)
		}
		told[w.Key()] = w
	}
	if len(told) != 4 {
		t.Errorf("%d transitions were told, want raised and cleared twice: %+v", len(told), told)
	}
	acknowledged := store.hasAll(t, l)
	for _, g := range []*gatewayProcess{gate, works[1], spare} {
		if code := g.stop(); code != 0 {
			t.Errorf("exit code %d\n%s", code, g.output)
		}
	}
	t.Logf("%d readings acknowledged, none missing; rules and store went on after %s, the centre after %s", acknowledged, took.Round(10*time.Millisecond), tookCentre.Round(10*time.Millisecond))
}

// TestRolesConsole: a machine that only hands on shows the page of the centre, and
// says so when there is none; each says which parts it has; what is changed of a
// device at the centre is known where readings are taken in.
func TestRolesConsole(t *testing.T) {
	t.Parallel()
	_, url := startNATS(t, 1)
	store := startCountingStore(t)
	hall := machineWith(t, url, store.url, "")
	hall.as("console")
	if status, body := hall.try("/api/v1/warnings"); status != http.StatusServiceUnavailable || !strings.Contains(body, "no machine has the part ioc") {
		t.Errorf("without a centre: %d %s", status, body)
	}
	desk := machineWith(t, url, store.url, "")
	desk.as("ioc")
	gate := machineWith(t, url, store.url, "")
	gate.as("ingest,rules")
	eventually(t, "the page of the centre is handed on", 10*time.Second, func() bool {
		status, body := hall.try("/api/v1/rules")
		return status == http.StatusOK && strings.Contains(body, "flood")
	})
	if status, body := gate.try("/api/v1/warnings"); status != http.StatusMisdirectedRequest || !strings.Contains(body, desk.ports.console) {
		t.Errorf("a machine without console: %d %s", status, body)
	}
	c := gate.client("river")
	gate.publish(c, "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "the warning and the device are shown", 10*time.Second, func() bool {
		_, body := hall.try("/api/v1/devices/kim-long")
		return len(hall.warnings("")) == 1 && strings.Contains(body, `"level_m":3.62`)
	})
	postTo(t, "http://"+hall.ports.console+"/api/v1/devices/kim-long/state", `{"state":"maintenance","by":"lan","why":"cleaning"}`)
	eventually(t, "readings of a device in maintenance are marked where they are taken in", 20*time.Second, func() bool {
		gate.publish(c, "telemetry/kim-long/river", `{"level_m":3.7}`)
		_, body := hall.try("/api/v1/devices/kim-long")
		return strings.Contains(body, `"quality":"maintenance"`)
	})
	var out strings.Builder
	h := gate.machine()
	h.print(&out, time.Now())
	for _, want := range []string{"ingest, rules", "rules.0", "here since"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("haidang health does not say %q:\n%s", want, out.String())
		}
	}
	if gate.metric("haidang_part_held", `part="rules"`) != 2 || hall.metric("haidang_part_held") != 0 || gate.metric("haidang_rules_evaluations_total", `part="rules"`) == 0 {
		t.Error("the metrics do not say which parts are held")
	}
	for _, g := range []*gatewayProcess{gate, desk, hall} {
		if code := g.stop(); code != 0 {
			t.Errorf("exit code %d\n%s", code, g.output)
		}
	}
}

func postTo(t *testing.T, url, body string) {
	t.Helper()
	response, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); response.StatusCode/100 != 2 {
		t.Fatalf("%s: %s %s", url, response.Status, text)
	}
}

// TestClusterRolesFrozen stops a machine that has everything for longer than its leases
// live, and lets it go on: it gives up what another has taken meanwhile without
// ending, stands by, and takes it again when that one ends.
func TestClusterRolesFrozen(t *testing.T) {
	if os.Getenv("HAIDANG_CLUSTER") == "" {
		t.Skip("leases that end take half a minute: make cluster")
	}
	t.Parallel()
	_, url := startNATS(t, 1)
	store, centre := startCountingStore(t), newRecipient(t)
	more := fmt.Sprintf("ioc: [{name: ioc, webhook: {url: %q}}]\n", centre.url)
	first, second := machineWith(t, url, store.url, more), machineWith(t, url, store.url, more)
	first.as("ingest,rules,store,ioc,console")
	second.as("ingest,rules,store,ioc,console")
	has := func(g *gatewayProcess) bool {
		return g.holds("rules") == 2 && g.holds("store") == 2 && g.holds("ioc") == 1
	}
	eventually(t, "the first has all parts", 20*time.Second, func() bool { return has(first) })
	c := first.client("river")
	first.publish(c, "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "the warning is told", 20*time.Second, func() bool { return len(centre.got()) == 1 })
	signal := func(g *gatewayProcess, s syscall.Signal) {
		if err := g.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	signal(first, syscall.SIGSTOP)
	eventually(t, "the second has all parts", 30*time.Second, func() bool { return has(second) })
	signal(first, syscall.SIGCONT)
	eventually(t, "the first stands by", 30*time.Second, func() bool {
		status, _ := first.try("/readyz")
		return status == http.StatusOK && first.holds("rules")+first.holds("store")+first.holds("ioc") == 0
	})
	second.publish(second.client("river"), "telemetry/kim-long/river", `{"level_m":0.4}`)
	cleared := func() bool { got := centre.got(); return got[len(got)-1].State == telemetry.Cleared }
	eventually(t, "its end is told", 20*time.Second, cleared)
	eventually(t, "the first hands on the page of the second", 10*time.Second, func() bool {
		status, body := first.try("/api/v1/warnings?state=all")
		return status == http.StatusOK && strings.Contains(body, "cleared")
	})
	if code := second.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, second.output)
	}
	eventually(t, "the first has all parts again", 20*time.Second, func() bool { return has(first) })
	first.publish(first.client("river-2"), "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "another warning is told", 20*time.Second, func() bool { return !cleared() })
	keys := map[string]bool{}
	for _, w := range centre.got() {
		keys[w.Key()] = true
	}
	if len(keys) != 3 {
		t.Errorf("%d transitions were told, want 3: %+v", len(keys), centre.got())
	}
	if code := first.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, first.output)
	}
}

// TestPartitionsNeedRoles: a configuration of machines whose roles are told by a flag
// is in order, and a gateway without roles does not run with it.
func TestPartitionsNeedRoles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	text := "spool: {url: \"nats://127.0.0.1:1\", partitions: 4}\ninflux: {url: \"http://127.0.0.1:1\", token: t, org: o, bucket: b}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "check", "--config", file, "--roles", "ingest,rules"); code != exitWell {
		t.Error(stderr)
	}
	if code, _, stderr := command(t, "check", "--config", file, "--roles", "ingest,rule"); code != exitUsage || !strings.Contains(stderr, "did you mean rules?") {
		t.Errorf("%d %s", code, stderr)
	}
	code, _, stderr := command(t, "run", "--config", file)
	if code != exitUsage || !strings.Contains(stderr, "gateway.yaml:1: spool.partitions: 4 partitions need roles") {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestClusterRolesShare: a machine that starts later gets its share of the partitions,
// and what is sent meanwhile is evaluated and stored.
func TestClusterRolesShare(t *testing.T) {
	if os.Getenv("HAIDANG_CLUSTER") == "" {
		t.Skip("parts are shared out anew after a quarter of a minute: make cluster")
	}
	t.Parallel()
	_, url := startNATS(t, 1)
	store, centre := startCountingStore(t), newRecipient(t)
	more := fmt.Sprintf("ioc: [{name: ioc, webhook: {url: %q}}]\n", centre.url)
	first, second := machineWith(t, url, store.url, more), machineWith(t, url, store.url, more)
	first.as("ingest,rules,store,ioc")
	eventually(t, "the first has all partitions", 20*time.Second, func() bool { return first.holds("rules") == 2 && first.holds("store") == 2 })
	c := first.client("river")
	first.publish(c, "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "the warning is told", 20*time.Second, func() bool { return len(centre.got()) == 1 })
	second.as("rules,store")
	l := &publisher{device: "load", start: time.Now().Add(-time.Hour), acked: map[int]bool{}}
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() { l.publish(first.client("load"), stop) })
	eventually(t, "each has one of two", 60*time.Second, func() bool {
		return first.holds("rules") == 1 && second.holds("rules") == 1 && first.holds("store") == 1 && second.holds("store") == 1
	})
	close(stop)
	publishing.Wait()
	first.publish(c, "telemetry/kim-long/river", `{"level_m":0.4}`)
	eventually(t, "its end is told", 20*time.Second, func() bool { return len(centre.got()) == 2 && centre.got()[1].State == telemetry.Cleared })
	acknowledged := store.hasAll(t, l)
	for _, g := range []*gatewayProcess{second, first} {
		if code := g.stop(); code != 0 {
			t.Errorf("exit code %d\n%s", code, g.output)
		}
	}
	t.Logf("%d readings acknowledged, none missing", acknowledged)
}

// TestRolesBesideAWhole: a gateway without roles and a machine with roles exclude each
// other; who comes second says so and takes nothing in.
func TestRolesBesideAWhole(t *testing.T) {
	t.Parallel()
	_, url := startNATS(t, 1)
	store := startCountingStore(t)
	whole, machine := prepare(t, fmt.Sprintf("spool: {url: %q, max_bytes: 64MiB, replicas: 1}\n", url)), prepare(t, fmt.Sprintf("spool: {url: %q, max_bytes: 64MiB, replicas: 1}\n", url))
	whole.elsewhere(store.url)
	machine.elsewhere(store.url)
	whole.start()
	machine.launch("run", "--config", filepath.Join(machine.dir, "gateway.yaml"), "--roles", "ingest,rules,store,ioc")
	eventually(t, "the machine says what is in its way", 10*time.Second, func() bool {
		status, body := machine.try("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "a gateway without roles has the whole log: stop it, or give it roles as well: test-box on ")
	})
	if conn, err := net.Dial("tcp", machine.ports.mqtt); err == nil {
		conn.Close()
		t.Error("the machine takes readings in")
	}
	if code := whole.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, whole.output)
	}
	eventually(t, "the machine goes on", 15*time.Second, func() bool { status, _ := machine.try("/readyz"); return status == http.StatusOK })
	if code := machine.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, machine.output)
	}
}
