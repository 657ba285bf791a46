package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOfferOutlivesRestart: a new recipient is down when it is added, and the
// gateway restarts before it could be told what is active.
func TestOfferOutlivesRestart(t *testing.T) {
	t.Parallel()
	added := newRecipient(t)
	added.answer(http.StatusInternalServerError)
	g := prepare(t, "")
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "raised", 5*time.Second, func() bool { return len(g.warnings("")) == 1 })
	g.stop()
	text, err := os.ReadFile(filepath.Join(g.dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	g.write("gateway.yaml", string(text)+fmt.Sprintf("ioc: [{name: added, webhook: {url: %q}}]\n", added.url))
	g.start()
	eventually(t, "it was tried", 5*time.Second, func() bool { return g.metric("haidang_ioc_failed_total") > 0 })
	g.stop()
	added.answer(http.StatusNoContent)
	g.start()
	eventually(t, "the new recipient has what is active", 5*time.Second, func() bool { return len(added.got()) > 0 })
}

// TestRoomAfterKill: the log filled within the first ten seconds, before the
// rules kept a checkpoint, and the power fails. When the store has caught up,
// the rules have too: the log is to be emptied.
func TestRoomAfterKill(t *testing.T) {
	t.Parallel()
	store, up := downStore(t)
	g := prepare(t, "spool: {max_bytes: 4MiB}\n")
	g.elsewhere(store)
	config := filepath.Join(g.dir, "gateway.yaml")
	working := func() bool {
		_, body := g.try("/readyz")
		return body != "" && !strings.Contains(body, `"gateway"`)
	}
	g.launch("run", "--config", config)
	eventually(t, "it works", 10*time.Second, working)
	g.fillUp()
	g.kill()
	up.Store(true)
	g.launch("run", "--config", config)
	eventually(t, "it works when there is room", 30*time.Second, func() bool { g.runs("room"); return working() })
}
