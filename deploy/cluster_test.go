package deploy_test

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"
)

// TestClusterConfiguration has haidang's own loader read the configuration of
// deploy/cluster, with the roles that compose and Kubernetes give the machines.
func TestClusterConfiguration(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "haidang")
	run(t, "..", []string{"CGO_ENABLED=0"}, "go", "build", "-o", program, "./gateway")
	if err := os.CopyFS(filepath.Join(dir, "etc"), os.DirFS("cluster/etc")); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "etc", "gateway.yaml")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("/etc/haidang/accounts.jsonl", filepath.Join(dir, "accounts.jsonl"), "/var/lib/haidang", filepath.Join(dir, "data"))
	check := func(more string) (string, error) {
		if err := os.WriteFile(name, []byte(here.Replace(string(text))+more), 0o600); err != nil {
			t.Fatal(err)
		}
		return try(dir, nil, program, "check", "--config", name)
	}
	if said, err := check(""); err == nil || !strings.Contains(said, "account") {
		t.Errorf("without accounts it listens to every network: %v\n%s", err, said)
	}
	run(t, dir, nil, program, "account", "add", "kim-long", "--role", "station", "--config", name)
	sets := roleSets(t)
	if len(sets) != 4 {
		t.Fatalf("the machines have the roles %q", sets)
	}
	for _, roles := range sets {
		if said, err := check("\nroles: [" + roles + "]\n"); err != nil || !strings.Contains(said, "well: ") {
			t.Errorf("roles %s: %v\n%s", roles, err, said)
		}
	}
	if said, err := check("\nroles: [ingest, rule]\n"); err == nil || !strings.Contains(said, "rule") {
		t.Errorf("a role that does not exist: %v\n%s", err, said)
	}
}

// roleSets are the roles that the machines of compose.yaml and of the manifests have,
// each combination once. Both have the same.
func roleSets(t *testing.T) []string {
	t.Helper()
	named := regexp.MustCompile(`\[run, --roles, "?([a-z,]+)"?, --config, /etc/haidang/gateway.yaml\]`)
	collect := func(pattern string) (out []string) {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range named.FindAllStringSubmatch(string(text), -1) {
				out = append(out, m[1])
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	compose, manifests := collect("cluster/compose.yaml"), collect("cluster/kubernetes/*.yaml")
	if !slices.Equal(compose, manifests) {
		t.Errorf("compose has the roles %q, Kubernetes %q", compose, manifests)
	}
	return compose
}

// TestClusterServers has NATS' own loader read nats.conf, with secrets as openssl
// makes them.
func TestClusterServers(t *testing.T) {
	t.Setenv("NATS_NAME", "nats-a")
	t.Setenv("NATS_SYSTEM_PASSWORD", "another")
	for range 200 {
		var secret [24]byte
		_, _ = rand.Read(secret[:]) // never fails
		word := "n" + hex.EncodeToString(secret[:])
		t.Setenv("NATS_PASSWORD", word)
		o, err := server.ProcessConfigFile("cluster/nats.conf")
		if err != nil {
			t.Fatalf("NATS_PASSWORD=%s: %v", word, err)
		}
		if !o.JetStream || !o.SyncAlways || len(o.Routes) != 3 || o.Cluster.Name == "" || o.ServerName != "nats-a" {
			t.Fatalf("%+v", o)
		}
		if i := slices.IndexFunc(o.Users, func(u *server.User) bool { return u.Username == "haidang" }); i < 0 || o.Users[i].Password != word {
			t.Fatalf("NATS_PASSWORD=%s is not the password of haidang: %+v", word, o.Users)
		}
	}
}

// TestClusterChart holds the values for NATS' chart to the keys that its version 1
// has, and to what docs/cluster.md asks of the servers.
func TestClusterChart(t *testing.T) {
	file, err := os.Open("cluster/kubernetes/nats.values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var values struct {
		Config struct {
			Cluster struct {
				Enabled  bool
				Name     string
				Replicas int
			}
			JetStream struct {
				Enabled   bool
				FileStore struct {
					PVC struct{ Size, StorageClassName string } `yaml:"pvc"`
				} `yaml:"fileStore"`
				Merge struct {
					SyncInterval string `yaml:"sync_interval"`
				}
			} `yaml:"jetstream"`
			Merge struct {
				Accounts map[string]struct {
					JetStream string `yaml:"jetstream"`
					Users     []struct{ User, Password string }
				}
			}
		}
		Container struct {
			Image struct{ Tag string }
			Env   map[string]any
			Merge map[string]any
		}
		PodTemplate struct {
			Spread map[string]any `yaml:"topologySpreadConstraints"`
		} `yaml:"podTemplate"`
		Budget struct{ Enabled bool } `yaml:"podDisruptionBudget"`
		Box    struct{ Enabled bool } `yaml:"natsBox"`
	}
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	if err := decoder.Decode(&values); err != nil {
		t.Fatal(err)
	}
	c := values.Config
	if !c.Cluster.Enabled || c.Cluster.Replicas != 3 || !c.JetStream.Enabled || c.JetStream.Merge.SyncInterval != "always" {
		t.Errorf("the servers: %+v", c)
	}
	for name, account := range c.Merge.Accounts {
		for _, user := range account.Users {
			variable := regexp.MustCompile(`^<< \$(\w+) >>$`).FindStringSubmatch(user.Password)
			if variable == nil || values.Container.Env[variable[1]] == nil {
				t.Errorf("account %s: the password %q of %s is no variable of the container", name, user.Password, user.User)
			}
		}
	}
	// The servers of compose and of Kubernetes are of one version.
	compose, err := os.ReadFile("cluster/compose.yaml")
	if err != nil || !strings.Contains(string(compose), "image: nats:"+values.Container.Image.Tag) {
		t.Errorf("compose.yaml has another nats than %s: %v", values.Container.Image.Tag, err)
	}
}

// TestClusterBalancer has haproxy check its configuration, where it is.
func TestClusterBalancer(t *testing.T) {
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Skip("haproxy is not here (Debian: haproxy; .ci/peers installs it)")
	}
	if said, err := try("cluster", nil, "haproxy", "-c", "-f", "haproxy.cfg"); err != nil || strings.Contains(said, "WARNING") {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestE2EManifests renders the kustomization and decodes what comes into the types of
// Kubernetes' API; a wrong key, and a name that nothing has, are found.
func TestE2EManifests(t *testing.T) {
	if os.Getenv("HAIDANG_E2E") == "" {
		t.Skip("builds a tool; make e2e runs it")
	}
	program := filepath.Join(t.TempDir(), "manifests")
	run(t, "../.ci/tools", nil, "go", "build", "-o", program, "./manifests")
	run(t, "cluster", nil, program, ".", "kubernetes/secret.example.yaml")
	for _, harm := range []struct{ file, from, to, want string }{
		{"kubernetes/rules.yaml", "terminationGracePeriodSeconds: 45", "terminationGracePeriod: 45", `unknown field "terminationGracePeriod"`},
		{"kubernetes/rules.yaml", "replicas: 2", "replicas: two", "cannot unmarshal string"},
		{"kubernetes/ingest.yaml", "targetPort: mqtt", "targetPort: mqtts", `has no port "mqtts"`},
		{"kubernetes/centre.yaml", "key: nats-password", "key: nats-pass", `has no key "nats-pass"`},
		{"kubernetes/console.yaml", "readinessProbe:", "livenessProbe:", "already defined"},
		{"kustomization.yaml", "etc/devices.yaml", "etc/device.yaml", "etc/device.yaml"},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("cluster")); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, harm.file)
		text, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(text), harm.from) {
			t.Fatalf("%s has no %q: %v", harm.file, harm.from, err)
		}
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(string(text), harm.from, harm.to)), 0o600); err != nil {
			t.Fatal(err)
		}
		if said, err := try(dir, nil, program, ".", "kubernetes/secret.example.yaml"); err == nil || !strings.Contains(said, harm.want) {
			t.Errorf("%s with %q was not refused for %q: %v\n%s", harm.file, harm.to, harm.want, err, said)
		}
	}
}
