package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"haidang/gateway/demo"
)

// browser returns what runs the scripts of console/e2e, or skips the test.
func browser(t *testing.T) (drive func(ctx context.Context, script string, args ...string)) {
	t.Helper()
	needPeers(t, "node", "chromium")
	modules, err := filepath.Abs("../.ci/npm/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"playwright-core", "axe-core"} {
		if _, err := os.Stat(filepath.Join(modules, name)); err != nil {
			if os.Getenv("HAIDANG_E2E") != "" {
				t.Fatalf("npm package %s is not installed: run .ci/peers", name)
			}
			t.Skipf("npm package %s is not installed (.ci/peers installs it)", name)
		}
	}
	if os.Getenv("HAIDANG_E2E") == "" {
		t.Skip("a minute in a browser: run with HAIDANG_E2E=1, as make e2e does")
	}
	return func(ctx context.Context, script string, args ...string) {
		t.Helper()
		limit, stop := context.WithTimeout(ctx, 5*time.Minute)
		defer stop()
		cmd := exec.CommandContext(limit, "node", append([]string{"console/e2e/" + script}, args...)...)
		cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "HAIDANG="+os.Args[0])
		if path, err := exec.LookPath("chromium"); err == nil {
			cmd.Env = append(cmd.Env, "CHROMIUM="+path)
		}
		said, err := cmd.CombinedOutput()
		t.Logf("%s", said)
		if err != nil {
			t.Errorf("%s: %v", script, err)
		}
	}
}

// TestE2EPage drives the operators' page in Chromium through the demo: see
// console/e2e/page.mjs. HAIDANG_SCREENSHOTS names a folder for pictures.
func TestE2EPage(t *testing.T) {
	t.Parallel()
	drive := browser(t)
	free := freePorts(t, 6)
	at := demo.Addresses{MQTT: free[0], NMEA: free[1], Modbus: free[2], IOC: free[3], Console: free[4], Influx: free[5]}
	ctx, cancel := context.WithCancel(t.Context())
	out, ended := &lockedBuffer{}, make(chan error, 1)
	dir := t.TempDir()
	go func() { ended <- runDemo(ctx, environment{stdout: out, stderr: out}, dir, 4, at) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the demo ended with %v\n%s", err, out)
		}
	}()
	eventually(t, "the console answers", 20*time.Second, func() bool {
		answer, err := http.Get("http://" + at.Console + "/readyz")
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	drive(ctx, "page.mjs", "http://"+at.Console, "http://"+at.Influx, os.Getenv("HAIDANG_SCREENSHOTS"))
}

// TestE2ESessions drives the page of a gateway with accounts: see
// console/e2e/session.mjs.
func TestE2ESessions(t *testing.T) {
	t.Parallel()
	drive := browser(t)
	g := prepare(t, "")
	text, err := os.ReadFile(filepath.Join(g.dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var tiles atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		tiles.Add(1)
		w.Header().Set("Content-Type", "image/svg+xml")
		_, _ = io.WriteString(w, `<svg xmlns="http://www.w3.org/2000/svg" width="256" height="256"/>`)
	}))
	defer server.Close()
	own := fmt.Sprintf("console: {session: {idle: 6s}, map: {tiles: %q, credit: Sở TN&MT}, ", server.URL+"/{z}/{x}/{y}.png")
	g.write("gateway.yaml", strings.Replace(string(text), "console: {", own, 1))
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "the warning is there", 10*time.Second, func() bool { return len(g.warnings("")) > 0 })
	const password = "thuyền về bến an toàn"
	for name, role := range map[string]string{"lan": "operator", "vy": "viewer", "quan": "administrator"} {
		g.account(password+"\n", "add", name, "--role", role)
	}
	eventually(t, "accounts are in force", 10*time.Second, func() bool { status, _ := g.try("/api/v1/warnings"); return status == http.StatusUnauthorized })
	drive(t.Context(), "session.mjs", "http://"+g.ports.console, filepath.Join(g.dir, "gateway.yaml"), password, server.URL, os.Getenv("HAIDANG_SCREENSHOTS"))
	if tiles.Load() == 0 {
		t.Error("the map does not draw the tiles of one's own server")
	}
}
