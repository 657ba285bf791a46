package faults

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"haidang/gateway/influx"
)

// engineVariable makes this test's program an InfluxDB: its engine and nothing
// else, in the folder that the variable names, with writes allowed.
const engineVariable = "HAIDANG_FAULTS_ENGINE"

// engineListen names its address.
const engineListen = "HAIDANG_FAULTS_ENGINE_LISTEN"

// engineMain is the program of the second process.
func engineMain(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg := influx.DefaultConfig()
	cfg.Listen = os.Getenv(engineListen)
	var store *influx.Store
	ingest := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			unpacked, err := gzip.NewReader(in)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			in = unpacked
		}
		body, err := io.ReadAll(in)
		if err == nil {
			err = store.Write(r.Context(), body)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	store, err := influx.Open(dir, cfg, nil, ingest)
	if err != nil {
		return err
	}
	defer store.Close()
	return store.Run(ctx)
}

// startEngine starts InfluxDB's engine in a process of its own.
func startEngine(t testing.TB, address string) *exec.Cmd {
	t.Helper()
	return startEngineOn(t, address, t.TempDir())
}

// startEngineOn does on what an engine before it has left in a folder.
func startEngineOn(t testing.TB, address, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), engineVariable+"="+dir, engineListen+"="+address)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	awaitListener(t, address)
	return cmd
}

func awaitListener(t testing.TB, address string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing listens at %s: %v", address, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// mosquitto starts the Mosquitto of this machine with QoS 1 queues that drop
// nothing; the address is "" where there is none.
func mosquitto(t testing.TB) string {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		return ""
	}
	address := freePorts(t, 1)[0]
	_, port, _ := net.SplitHostPort(address)
	name := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages 0\nmax_queued_messages 0\n", port)
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	awaitListener(t, address)
	return address
}
