package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsPath is the path of nats-server, built of the module that haidang uses.
var natsPath = sync.OnceValues(func() (string, error) {
	haidang, err := haidangPath()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(haidang), "nats-server")
	if os.Getenv(ready) != "" {
		dir, err := os.MkdirTemp("", "haidang-nats-")
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, "nats-server")
	}
	build := exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return path, fmt.Errorf("go build nats-server: %w\n%s", err, out)
	}
	return path, nil
})

// A node is a NATS server in a process of its own.
type node struct {
	t       testing.TB
	spot    *spot
	config  string // file
	address string
	output  *buffer
	cmd     *exec.Cmd
	ended   chan struct{}
}

// nodes are the servers of one cluster.
type nodes []*node

// newNodes starts servers that sync each write, each in a folder of its own.
func newNodes(t testing.TB, g *ground, size int, folder func() string) nodes {
	t.Helper()
	var all nodes
	var routes []string
	for i := range size {
		s := g.join(fmt.Sprintf("n%d", i))
		all = append(all, &node{t: t, spot: s, address: s.address(4222)})
		routes = append(routes, s.address(6222))
	}
	for i, n := range all {
		text := fmt.Sprintf("server_name: n%d\nlisten: %q\njetstream: {store_dir: %q, max_file_store: 64GB, sync_interval: always}\n", i, n.address, folder())
		if size > 1 {
			text += fmt.Sprintf("cluster: {name: faults, listen: %q, routes: [nats://%s]}\n", routes[i], strings.Join(routes, ", nats://"))
		}
		n.config = filepath.Join(t.TempDir(), "nats.conf")
		if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n.start()
	}
	all.settled()
	return all
}

// quickDir is a folder of the servers: in memory where there is such a place, so that
// the trial waits for elections and leases and not for a disk that others use. What a
// killed process has written stays there as on a disk. For figures of a disk, name a
// folder of it in HAIDANG_CLUSTER_DIR.
func quickDir(t testing.TB) string {
	t.Helper()
	parent := os.Getenv("HAIDANG_CLUSTER_DIR")
	if parent == "" {
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "haidang-nats-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (n *node) start() {
	n.t.Helper()
	path, err := natsPath()
	if err != nil {
		n.t.Fatal(err)
	}
	n.output = &buffer{}
	n.cmd = exec.Command(path, "--config", n.config)
	n.cmd.Stdout, n.cmd.Stderr = n.output, n.output
	n.spot.inside(n.cmd)
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	cmd, ended := n.cmd, make(chan struct{})
	n.ended = ended
	go func() { _ = cmd.Wait(); close(ended) }()
	n.t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
}

// kill is SIGKILL.
func (n *node) kill() {
	_ = n.cmd.Process.Kill() // it may have ended
	<-n.ended
}

// stop asks it to end.
func (n *node) stop() {
	n.t.Helper()
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.ended:
	case <-time.After(30 * time.Second * slowness()):
		n.t.Fatalf("nats-server still runs\n%s", n.output.tail())
	}
}

func (all nodes) url() string {
	var urls []string
	for _, n := range all {
		urls = append(urls, "nats://"+n.address)
	}
	return strings.Join(urls, ",")
}

// settled waits until JetStream answers and each stream has all its replicas up to
// date.
func (all nodes) settled() {
	t := all[0].t
	t.Helper()
	var why string
	for deadline := time.Now().Add(60 * time.Second * slowness()); ; {
		if why = all.unsettled(); why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the cluster has not settled: %s\n%s", why, all[0].output.tail())
		}
		<-time.After(100 * time.Millisecond)
	}
}

// unsettled says what is not well with the cluster.
func (all nodes) unsettled() string {
	conn, err := nats.Connect(all.url(), nats.Timeout(time.Second))
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(2*time.Second))
	if err != nil {
		return err.Error()
	}
	ctx := all[0].t.Context()
	if _, err := js.AccountInfo(ctx); err != nil {
		return err.Error()
	}
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		if info.Cluster == nil || info.Config.Replicas == 1 {
			continue
		}
		if info.Cluster.Leader == "" {
			return info.Config.Name + " has no leader"
		}
		for _, replica := range info.Cluster.Replicas {
			if !replica.Current || replica.Offline || replica.Lag > 50 {
				return fmt.Sprintf("%s: replica %+v", info.Config.Name, *replica)
			}
		}
	}
	if err := streams.Err(); err != nil {
		return err.Error()
	}
	return ""
}
