package faults

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// beforeVariable names a haidang of an earlier version; without it the same source is
// built under another version.
const beforeVariable = "HAIDANG_BINARY_BEFORE"

// TestClusterUpgrade replaces each machine and each server in turn under load, by the
// procedure of docs/cluster.md ("Upgrade without a gap"): 0 lost, 0 doubled, no warning
// missed.
func TestClusterUpgrade(t *testing.T) {
	if clusterMode(t) {
		t.Skip("TestClusterFaults is enough for a short trial")
	}
	older, newer := os.Getenv(beforeVariable), versioned(t, "v2-after")
	if older == "" {
		older = versioned(t, "v1-before")
	}
	f := form(t, formed{machines: four.machines, partitions: four.partitions, publishers: four.publishers, pause: four.pause, program: older})
	begin := time.Now()
	f.load()
	f.works(begin, 3*time.Minute)
	before := f.versions()
	r := row{fault: "u1 rolling upgrade"}
	for _, n := range f.nodes { // the servers first
		n.stop()
		n.start()
		f.nodes.settled()
	}
	for _, m := range f.machines {
		begin := time.Now()
		if code, _ := m.stop(); code != 0 {
			t.Errorf("%s: exit code %d\n%s", m.name, code, m.output.tail())
		}
		m.program = newer
		m.start()
		took := f.works(begin, 3*time.Minute)
		if took > bound*slowness() {
			t.Errorf("everything works %v after %s was stopped, want %v at most", took, m.name, bound)
		}
		r.recovery = max(r.recovery, took)
		r.times++
	}
	f.reconcile(r)
	for name, version := range f.versions() {
		if version == before[name] || version != "v2-after" {
			t.Errorf("%s has version %s, before %s", name, version, before[name])
		}
	}
	f.unload()
}

// versioned builds haidang with a version.
func versioned(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "haidang")
	build := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", path, "haidang/gateway")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// versions asks each machine for its version.
func (f *formation) versions() map[string]string {
	f.t.Helper()
	out := map[string]string{}
	for _, m := range f.machines {
		said, err := exec.Command(m.program, "health", "--json", "--data", m.data).Output()
		var answer struct{ Version string }
		if err != nil || json.Unmarshal(said, &answer) != nil || answer.Version == "" {
			f.t.Errorf("%s: haidang health says %.200s: %v", m.name, said, err)
		}
		out[m.name] = answer.Version
	}
	return out
}
