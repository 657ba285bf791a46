package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"haidang/gateway/demo"
)

// TestE2EPage drives the operators' page in Chromium through the demo: see
// console/e2e/page.mjs. HAIDANG_SCREENSHOTS names a folder for pictures.
func TestE2EPage(t *testing.T) {
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
	limit, stop := context.WithTimeout(ctx, 5*time.Minute)
	defer stop()
	drive := exec.CommandContext(limit, "node", "console/e2e/page.mjs", "http://"+at.Console, "http://"+at.Influx, os.Getenv("HAIDANG_SCREENSHOTS"))
	drive.Env = append(os.Environ(), "NODE_PATH="+modules, "CHROMIUM=chromium")
	if path, err := exec.LookPath("chromium"); err == nil {
		drive.Env = append(drive.Env, "CHROMIUM="+path)
	}
	said, err := drive.CombinedOutput()
	t.Logf("%s", said)
	if err != nil {
		t.Errorf("the page: %v", err)
	}
}
