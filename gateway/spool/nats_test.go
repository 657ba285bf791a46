package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// A natsCluster is some servers in this process, with an account for each log.
type natsCluster struct {
	servers []*server.Server
	files   []string // their configurations
	ports   []int
}

// accountsOfCluster is how many logs there may be.
const accountsOfCluster = 48

// startCluster starts servers that are one cluster, or one alone. more is added
// to their configuration.
func startCluster(t testing.TB, name string, size int, more ...string) *natsCluster {
	t.Helper()
	ports := freePorts(t, 2*size)
	c := &natsCluster{servers: make([]*server.Server, size), ports: ports[:size]}
	var routes []string
	for _, port := range ports[size:] {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	var accounts strings.Builder
	for n := range accountsOfCluster {
		fmt.Fprintf(&accounts, "log%d: {jetstream: enabled, users: [{user: log%d, password: secret}]}\n", n, n)
	}
	for i := range size {
		text := fmt.Sprintf("server_name: %s-%d\nlisten: 127.0.0.1:%d\njetstream: {store_dir: %q, max_file_store: 64GB, sync_interval: always}\n", name, i, ports[i], t.TempDir())
		if size > 1 {
			text += fmt.Sprintf("cluster: {name: %s, listen: 127.0.0.1:%d, routes: [%s]}\n", name, ports[size+i], strings.Join(routes, ", "))
		}
		text += "accounts: {\n$SYS: {users: [{user: system, password: secret}]}\n" + accounts.String() + "}\n" + strings.Join(more, "\n")
		file := filepath.Join(t.TempDir(), "nats.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.files = append(c.files, file)
		c.start(t, i)
	}
	t.Cleanup(func() {
		for i := range c.servers {
			c.end(i)
		}
	})
	c.settled(t)
	return c
}

// freePorts returns ports that nobody listens on, below those that the system
// gives away by itself.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for len(ports) < n {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 12_000+rand.IntN(20_000)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// start starts a server, again with what it had on its disk.
func (c *natsCluster) start(t testing.TB, i int) {
	t.Helper()
	o, err := server.ProcessConfigFile(c.files[i])
	if err != nil {
		t.Fatal(err)
	}
	o.NoSigs, o.NoLog = true, true
	ns, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	c.servers[i] = ns
	go ns.Start()
}

// end ends a server.
func (c *natsCluster) end(i int) {
	if c.servers[i] != nil {
		c.servers[i].Shutdown()
		c.servers[i].WaitForShutdown()
		c.servers[i] = nil
	}
}

// settled waits until the servers have found each other and have a leader.
func (c *natsCluster) settled(t testing.TB) {
	t.Helper()
	until(t, "the cluster takes connections and has a leader", func() bool {
		leader := len(c.servers) == 1
		for _, ns := range c.servers {
			if ns != nil && !ns.ReadyForConnections(time.Millisecond) {
				return false
			}
			leader = leader || ns != nil && ns.JetStreamIsLeader()
		}
		return leader
	})
}

func (c *natsCluster) url() string {
	var all []string
	for _, port := range c.ports {
		all = append(all, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	return strings.Join(all, ",")
}

// config is that of the log number n, kept by all servers.
func (c *natsCluster) config(n int) Config {
	return Config{URL: c.url(), Replicas: len(c.ports), User: fmt.Sprint("log", n), Password: "secret", MaxBytes: 64 << 20}
}

// overCluster, in the environment, is the address of a cluster and a folder:
// then open opens logs there instead of embedded ones, each in an account of its
// own.
const overCluster = "HAIDANG_SPOOL_OVER_CLUSTER"

// inCluster is where the log of a folder is.
func inCluster(t testing.TB, dir string) Config {
	t.Helper()
	where := strings.Split(os.Getenv(overCluster), " ")
	replicas, _ := strconv.Atoi(where[1])
	note := filepath.Join(dir, "account")
	n, err := os.ReadFile(note)
	for i := 0; err != nil && i < accountsOfCluster; i++ {
		if os.Mkdir(filepath.Join(where[2], fmt.Sprint(i)), 0o700) == nil {
			n = []byte(strconv.Itoa(i))
			err = os.WriteFile(note, n, 0o600)
		}
	}
	if err != nil {
		t.Fatal("there are no more accounts")
	}
	return Config{URL: where[0], Replicas: replicas, User: "log" + string(n), Password: "secret", MaxBytes: 64 << 20}
}
