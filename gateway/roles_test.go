package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	deadline := time.Now().Add(30 * time.Second)
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

// machine asks a machine how it is.
func (g *gatewayProcess) machine() (h health) {
	g.t.Helper()
	_, body := g.try(machinePath)
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		g.t.Fatalf("%s: %v\n%s", body, err, g.output)
	}
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
	desk := machineWith(t, url, store.url, fmt.Sprintf("ioc: [{name: ioc, webhook: {url: %q}}]\n", centre.url))
	field.as("ingest,rules,store")
	desk.as("ioc,console")
	eventually(t, "the parts are taken", 20*time.Second, func() bool {
		return field.holds("rules") == 2 && field.holds("store") == 2
	})
	c := field.client("river")
	field.publish(c, "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "the warning is told", 20*time.Second, func() bool { return len(centre.got()) > 0 })
	field.publish(c, "telemetry/kim-long/river", `{"level_m":0.4}`)
	eventually(t, "its end is told", 20*time.Second, func() bool {
		got := centre.got()
		return got[len(got)-1].State == telemetry.Cleared
	})
	if code := field.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, field.output)
	}
	if code := desk.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, desk.output)
	}
}
