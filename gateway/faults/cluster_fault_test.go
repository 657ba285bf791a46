package faults

import (
	"testing"
	"time"

	"haidang/gateway/spool"
)

// bound is how long a part may take to go on elsewhere: a lease lasts ten seconds.
const bound = 15 * time.Second

// TestClusterFaults does harm to a cluster of three servers and four machines, one
// after the other under load, and reconciles after each: 0 lost, 0 doubled, no
// warning missed. A short trial has a server that is killed, a machine that is cut off
// for long enough that others take its parts over, and the restart of everything.
func TestClusterFaults(t *testing.T) {
	short := clusterMode(t)
	f := form(t, four)
	begin := time.Now()
	f.load()
	f.works(begin, 3*time.Minute)
	f.harm("c1 a NATS server killed", bound, func() func() {
		f.nodes[0].kill()
		return func() { f.nodes[0].start(); f.nodes.settled() }
	})
	if !short {
		f.harm("c2 rules machine killed", bound, func() func() { return f.killed(f.holder("rules")) })
		f.harm("c3 store machine killed", bound, func() func() { return f.killed(f.holder("store")) })
		f.harm("c4 centre killed", bound, func() func() { return f.killed(f.holder("ioc")) })
		f.harm("c4 who tells the recipient killed", bound, func() func() {
			return f.killed(f.holder(spool.Part{Role: spool.RolePost, Partition: spool.PartitionOf(recipientName, f.spool.Partitions)}.String()))
		})
		f.harm("c5 ingest machine killed", bound, func() func() { return f.killed(f.holder("ingest")) })
	}
	lasting := time.Minute
	if short {
		lasting = 12 * time.Second
	}
	f.harm("c6 rules machine cut off", bound, func() func() { return f.cutOff(f.holder("rules"), lasting) })
	if !short {
		f.harm("c7 ingest machine cut off", bound+10*time.Second, func() func() { return f.cutOff(f.holder("ingest"), lasting) })
		// Who is connected to it hears of it after two pings without an answer: 9 s.
		f.harm("c8 a NATS server cut off", bound+5*time.Second, func() func() { return f.cutServer(f.nodes[1], lasting) })
	}
	f.harm("c9 everything restarted", 30*time.Second, func() func() { f.restartAll(); return func() {} })
	f.unload()
	for _, m := range f.machines {
		if code, _ := m.stop(); code != 0 {
			t.Errorf("%s: exit code %d\n%s", m.name, code, m.output.tail())
		}
	}
}

// harm does one harm under load, waits until everything works with what is left,
// undoes it, waits until everything works again, and reconciles.
func (f *formation) harm(name string, within time.Duration, do func() (undo func())) {
	f.t.Helper()
	begin := time.Now()
	undo := do()
	if waited := f.harmed; !waited.IsZero() {
		begin, f.harmed = waited, time.Time{}
	}
	took := f.works(begin, 3*time.Minute)
	if took > within*slowness() {
		f.t.Errorf("%s: everything works after %v, want %v at most", name, took, within)
	}
	undo()
	f.awaitMachines()
	f.works(time.Now(), 3*time.Minute)
	f.reconcile(row{fault: name, times: 1, recovery: took})
}

// killed kills a machine; undoing starts it again.
func (f *formation) killed(m *machine) func() {
	f.harmed = time.Now()
	m.kill()
	return m.launch
}

// cutOff takes a machine off the network for a while. Undoing waits for the end of
// that while; a machine whose part has gone to another may end, and is started again
// as systemd would.
func (f *formation) cutOff(m *machine, lasting time.Duration) func() {
	f.harmed = time.Now()
	m.spot.cut(m.cmd.Process)
	healed := time.After(lasting)
	return func() {
		<-healed
		m.spot.heal(m.cmd.Process)
		f.again(m)
	}
}

// again starts a machine again as often as it ends, until it is ready.
func (f *formation) again(m *machine) {
	f.t.Helper()
	f.eventually(m.name+" is ready again", 3*time.Minute, func() bool {
		select {
		case <-m.ended:
			f.t.Logf("%s ended with %d and is started again", m.name, m.exit)
			m.launch()
		default:
		}
		status, _ := m.try("/readyz")
		return status == 200 || m.roles == "" && status == 503
	})
}

func (f *formation) cutServer(n *node, lasting time.Duration) func() {
	f.harmed = time.Now()
	n.spot.cut(n.cmd.Process)
	healed := time.After(lasting)
	return func() {
		<-healed
		n.spot.heal(n.cmd.Process)
		f.nodes.settled()
	}
}

// restartAll kills every process and starts it again.
func (f *formation) restartAll() {
	f.t.Helper()
	f.harmed = time.Now()
	for _, m := range f.machines {
		m.kill()
	}
	for _, n := range f.nodes {
		n.kill()
	}
	_ = f.engine.Process.Kill()
	_ = f.engine.Wait()
	for _, n := range f.nodes {
		n.start()
	}
	f.engine = startEngineOn(f.t, f.store, f.files)
	for _, m := range f.machines {
		m.launch()
	}
}

// TestClusterStandby does to two whole gateways what a second one is for.
func TestClusterStandby(t *testing.T) {
	if clusterMode(t) {
		t.Skip("TestClusterFaults is enough for a short trial")
	}
	f := form(t, formed{machines: [][2]string{{"first", ""}, {"second", ""}}, partitions: 1, publishers: 3, pause: 10 * time.Millisecond})
	begin := time.Now()
	f.load()
	f.works(begin, 3*time.Minute)
	f.harm("cs gateway killed, standby goes on", bound, func() func() { return f.killed(f.holder("")) })
	f.harm("cs gateway cut off, standby goes on", bound+10*time.Second, func() func() { return f.cutOff(f.holder(""), 30*time.Second) })
	f.unload()
}
