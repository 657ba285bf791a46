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

// TestE2ERulesPage writes a rule in Chromium, over the demo: see
// console/e2e/rules.mjs. HAIDANG_SCREENSHOTS names a folder for pictures.
func TestE2ERulesPage(t *testing.T) {
	needPeers(t, "node", "chromium")
	if os.Getenv("HAIDANG_E2E") == "" {
		t.Skip("a minute in a browser: run with HAIDANG_E2E=1, as make e2e does")
	}
	modules, err := filepath.Abs("../.ci/npm/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "axe-core")); err != nil {
		t.Fatal("npm package axe-core is not installed: run .ci/peers")
	}
	free := freePorts(t, 6)
	at := demo.Addresses{MQTT: free[0], NMEA: free[1], Modbus: free[2], IOC: free[3], Console: free[4], Influx: free[5]}
	ctx, cancel := context.WithCancel(t.Context())
	out, ended := &lockedBuffer{}, make(chan error, 1)
	dir := t.TempDir()
	go func() { ended <- runDemo(ctx, environment{stdout: out, stderr: out}, dir, 6, at) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the demo ended with %v\n%s", err, out)
		}
	}()
	eventually(t, "there is a past of some floods", 60*time.Second, func() bool {
		answer, err := http.Get("http://" + at.Console + "/api/v1/warnings?state=cleared&rule=flood-level")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK && answer.ContentLength > 200
	})
	limit, stop := context.WithTimeout(ctx, 5*time.Minute)
	defer stop()
	drive := exec.CommandContext(limit, "node", "console/e2e/rules.mjs", "http://"+at.Console, os.Getenv("HAIDANG_SCREENSHOTS"))
	drive.Env = append(os.Environ(), "NODE_PATH="+modules, "CHROMIUM=chromium")
	if path, err := exec.LookPath("chromium"); err == nil {
		drive.Env = append(drive.Env, "CHROMIUM="+path)
	}
	said, err := drive.CombinedOutput()
	t.Logf("%s", said)
	if err != nil {
		t.Errorf("the pages of rules: %v", err)
	}
}
