package main

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSocketListen: the socket is for its owner only, works below long paths,
// replaces one that is stale and not one that answers.
func TestSocketListen(t *testing.T) {
	data := filepath.Join(t.TempDir(), strings.Repeat("ở-xa-", 20), strings.Repeat("x", 100))
	if err := os.MkdirAll(data, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, _, err := instanceClient(data); err == nil || !strings.Contains(err.Error(), "no gateway runs on the data folder") {
		t.Errorf("no socket: %v", err)
	}
	first, err := listenSocket(data)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, socketName)
	if at, err := os.Lstat(path); err != nil || at.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", at.Mode(), err)
	}
	if _, err := listenSocket(data); !errors.Is(err, errInstanceRuns) {
		t.Errorf("a second gateway: %v", err)
	}
	// A process that was killed leaves its socket behind.
	if err := first.(*socketListener).Listener.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := instanceClient(data); err == nil || !strings.Contains(err.Error(), "no gateway runs on the data folder") {
		t.Errorf("a stale socket: %v", err)
	}
	second, err := listenSocket(data)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })}
	served := make(chan error)
	go func() { served <- server.Serve(second) }()
	client, base, err := instanceClient(data)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Get(base + "/")
	if err != nil || response.StatusCode != http.StatusTeapot {
		t.Fatalf("over the socket: %v, %v", response, err)
	}
	response.Body.Close()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-served
	left, err := os.ReadDir(data)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestSocketOfAGateway reaches a process by its data folder, also after it was
// killed and started again.
func TestSocketOfAGateway(t *testing.T) {
	g := prepare(t, "")
	g.start()
	g.kill()
	g.start()
	at := runningGateway{file: filepath.Join(g.dir, "gateway.yaml")}
	var answer struct{ Rules []struct{ Name string } }
	if err := at.ask(t.Context(), http.MethodGet, "/api/v1/rules", nil, nil, &answer); err != nil || len(answer.Rules) == 0 {
		t.Errorf("rules: %v, %v", answer, err)
	}
	err := at.ask(t.Context(), http.MethodGet, "/api/v1/warnings/none", nil, nil, nil)
	if err == nil || err.Error() != `there is no warning "none"` {
		t.Errorf("a problem is told as %v", err)
	}
	// The console's own address is not for foreign hosts; the socket is.
	if conn, err := net.Dial("unix", filepath.Join(g.dir, "data", socketName)); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, g.output)
	}
	if _, err := os.Lstat(filepath.Join(g.dir, "data", socketName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket outlives its gateway: %v", err)
	}
}
