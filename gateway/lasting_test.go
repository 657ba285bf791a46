package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestDamagedCheckpoint: the rules' checkpoints are damaged, both, and the readings
// before them are gone with the disk's other bad blocks. The gateway starts, and
// clears the warning that it cannot know anything of.
func TestDamagedCheckpoint(t *testing.T) {
	t.Parallel()
	g := prepare(t, "")
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "raised", 5*time.Second, func() bool { return len(g.warnings("")) == 1 })
	if code := g.stop(); code != exitWell {
		t.Fatalf("exit code %d\n%s", code, g.output)
	}
	streams := filepath.Join(g.dir, "data", "spool", "jetstream", "*", "streams")
	spoilAll(t, filepath.Join(streams, "OBJ_CHECKPOINTS", "msgs", "*.blk"), "HDRS")
	readings, err := filepath.Glob(filepath.Join(streams, "READINGS"))
	if err != nil || len(readings) != 1 {
		t.Fatalf("the readings are in %v, %v", readings, err)
	}
	if err := os.RemoveAll(readings[0]); err != nil {
		t.Fatal(err)
	}

	g.start()
	eventually(t, "cleared", 5*time.Second, func() bool { return len(g.warnings("")) == 0 })
	if !strings.Contains(g.output.String(), "the rules' checkpoint cannot be read") {
		t.Errorf("nobody is told:\n%s", g.output)
	}
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5.1}`)
	eventually(t, "raised anew", 5*time.Second, func() bool { return len(g.warnings("")) == 1 })
}

// spoilAll changes some bytes shortly after each mark in the files.
func spoilAll(t *testing.T, pattern, mark string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no file is %s: %v", pattern, err)
	}
	found := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; ; {
			next := bytes.Index(text[at:], []byte(mark))
			if next < 0 {
				break
			}
			at += next + 40
			copy(text[at:], "spoilt")
			found++
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if found == 0 {
		t.Fatalf("no %q in %v", mark, files)
	}
}

// TestNewRecipient: a recipient that is added is offered what is active and
// nothing that is over. One that was down all the time gets everything, over
// restarts.
func TestNewRecipient(t *testing.T) {
	t.Parallel()
	known, added := newRecipient(t), newRecipient(t)
	known.answer(http.StatusInternalServerError)
	entry := func(name, url string) string { return fmt.Sprintf("  - {name: %s, webhook: {url: %q}}\n", name, url) }
	g := prepare(t, "ioc:\n"+entry("known", known.url))
	g.start()
	station := g.client("station")
	for range 2 {
		g.publish(station, "telemetry/kim-long/river", `{"level_m":5}`)
		g.publish(station, "telemetry/kim-long/river", `{"level_m":0.1}`)
	}
	g.publish(station, "telemetry/phu-oc/river", `{"level_m":9}`)
	eventually(t, "two are over and one is active", 5*time.Second, func() bool {
		return len(g.warnings("?state=all")) == 3 && len(g.warnings("")) == 1
	})
	active := g.warnings("")[0]
	g.stop()

	text, err := os.ReadFile(filepath.Join(g.dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	g.write("gateway.yaml", string(text)+entry("added", added.url))
	g.start()
	eventually(t, "the new recipient has what is active", 5*time.Second, func() bool { return len(added.got()) > 0 })
	g.kill()

	known.answer(http.StatusNoContent)
	g.start()
	eventually(t, "the known recipient has all that is over and what is active", 10*time.Second, func() bool {
		last := map[string]telemetry.State{}
		for _, w := range known.got() {
			last[w.ID] = w.State
		}
		over := 0
		for _, state := range last {
			if state == telemetry.Cleared {
				over++
			}
		}
		return len(last) == 3 && over == 2 && last[active.ID] == telemetry.Active
	})
	// The new one follows on from there.
	g.publish(g.client("station"), "telemetry/phu-oc/river", `{"level_m":0.1}`)
	eventually(t, "the new recipient has its end", 5*time.Second, func() bool {
		got := added.got()
		return got[len(got)-1].State == telemetry.Cleared
	})
	for _, w := range added.got() {
		if w.ID != active.ID {
			t.Errorf("the new recipient was sent %s, which was over before", w.Key())
		}
	}
}

// TestShelvingEnds by itself, and without anything being received.
func TestShelvingEnds(t *testing.T) {
	t.Parallel()
	g := prepare(t, "")
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":5}`)
	eventually(t, "raised", 5*time.Second, func() bool { return len(g.warnings("")) == 1 })
	w := g.warnings("")[0]
	until := time.Now().Add(700 * time.Millisecond)
	act := fmt.Sprintf(`{"n":%d,"by":"lan","until":%q}`, w.N, until.Format(time.RFC3339Nano))
	response, err := http.Post("http://"+g.ports.console+"/api/v1/warnings/"+w.ID+"/shelve", "application/json", strings.NewReader(act))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("shelve: %s", response.Status)
	}
	if now := g.warnings("")[0]; now.State != telemetry.Shelved {
		t.Fatalf("the warning is %s after shelving", now.State)
	}
	eventually(t, "shelving ends", 4*time.Second, func() bool { return g.warnings("")[0].State == telemetry.Active })
	if time.Now().Before(until) {
		t.Errorf("shelving ended before %v", until)
	}
	if now := g.warnings("")[0]; now.N != w.N+2 || now.Expires != nil {
		t.Errorf("after shelving %+v", now)
	}
}
