package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// TestRolesShareRecipients: two machines with the role ioc have the recipients among
// them, each recipient is told once, the centre knows of all, and what a machine told
// is known and goes on when it is gone.
func TestRolesShareRecipients(t *testing.T) {
	t.Parallel()
	_, url := startNATS(t, 1)
	store := startCountingStore(t)
	names := []string{"border", "coast-guard", "dyke", "fire"}
	recipients := map[string]*recipient{}
	more, shares := "ioc:\n", map[int]bool{}
	for _, name := range names {
		recipients[name] = newRecipient(t)
		shares[spool.PartitionOf(name, 2)] = true
		more += fmt.Sprintf("  - {name: %s, webhook: {url: %q}}\n", name, recipients[name].url)
	}
	if len(shares) != 2 {
		t.Fatal("the names of the recipients are all of one share")
	}
	desks := []*gatewayProcess{machineWith(t, url, store.url, more), machineWith(t, url, store.url, more)}
	for _, g := range desks {
		g.launch("run", "--config", filepath.Join(g.dir, "gateway.yaml"), "--roles", "ioc,console")
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("a machine with the role ioc:\n%s", g.output)
			}
		})
	}
	field := machineWith(t, url, store.url, more)
	field.as("ingest,rules,store")
	eventually(t, "each has a share of the recipients", 60*time.Second, func() bool {
		return desks[0].holds("post.") == 1 && desks[1].holds("post.") == 1
	})
	c := field.client("river")
	told := func(n int, state telemetry.State) {
		t.Helper()
		for _, name := range names {
			eventually(t, fmt.Sprintf("%s is told of transition %d", name, n), 30*time.Second, func() bool { return len(recipients[name].got()) >= n })
			if got := recipients[name].got(); len(got) != n || got[n-1].N != n || got[n-1].State != state {
				t.Errorf("%s is told %+v, want %d transitions, the last %s", name, got, n, state)
			}
		}
	}
	field.publish(c, "telemetry/kim-long/river", `{"level_m":3.62}`)
	told(1, telemetry.Active)
	id := recipients[names[0]].got()[0].ID
	knows := func(g *gatewayProcess, all, accepted int) {
		t.Helper()
		var fare, attempts string
		defer func() {
			if t.Failed() {
				t.Logf("the page knows %s\n%s", fare, attempts)
			}
		}()
		eventually(t, "the page knows how all recipients fare, and who was told", 15*time.Second, func() bool {
			_, fare = g.try("/api/v1/recipients")
			_, attempts = g.try("/api/v1/warnings/" + id + "/deliveries")
			return strings.Count(fare, `"last_success"`) == all && strings.Count(attempts, `"accepted":true`) == accepted
		})
	}
	knows(desks[0], 4, 4)
	knows(desks[1], 4, 4)

	centre, other := desks[0], desks[1]
	if other.holds("ioc") == 1 {
		centre, other = other, centre
	}
	if text := centre.must("health"); strings.Count(text, "told by test-box") == 0 {
		t.Errorf("haidang health does not say who tells the others:\n%s", text)
	}
	// One recipient more, first where it is not told.
	extra := newRecipient(t)
	for _, g := range []*gatewayProcess{centre, other} {
		text, err := os.ReadFile(filepath.Join(g.dir, "gateway.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		g.write("gateway.yaml", strings.Replace(string(text), "ioc:\n", fmt.Sprintf("ioc:\n  - {name: %s, webhook: {url: %q}}\n", ofShareOf(other), extra.url), 1))
	}
	postTo(t, "http://"+centre.ports.console+"/api/v1/rules/reload", `{}`)
	eventually(t, "one that no machine tells is told of", 15*time.Second, func() bool {
		return strings.Contains(centre.must("health"), "no machine tells of warnings now")
	})
	if err := other.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is offered what lasts", 15*time.Second, func() bool { return len(extra.got()) == 1 })
	knows(centre, 5, 5) // so its answer is not lost with the machine

	if code := other.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, other.output)
	}
	eventually(t, "one machine has all recipients", 30*time.Second, func() bool { return centre.holds("post.") == 2 })
	field.publish(c, "telemetry/kim-long/river", `{"level_m":0.4}`)
	told(2, telemetry.Cleared)
	eventually(t, "so does the one that came later", 10*time.Second, func() bool { return len(extra.got()) == 2 })
	if status, body := centre.try("/api/v1/health"); status != http.StatusOK || strings.Contains(body, `"recipients":"`) {
		t.Errorf("%d %s", status, body)
	}
	knows(centre, 5, 10)
	for _, g := range []*gatewayProcess{field, centre} {
		if code := g.stop(); code != 0 {
			t.Errorf("exit code %d\n%s", code, g.output)
		}
	}
}

// ofShareOf returns a name of the share of the recipients that a machine has.
func ofShareOf(g *gatewayProcess) string {
	for i := 0; ; i++ {
		name := fmt.Sprint("later-", i)
		if g.holds(fmt.Sprint("post.", spool.PartitionOf(name, 2))) == 1 {
			return name
		}
	}
}
