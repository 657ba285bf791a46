// Package deploy_test holds the files that put Hải Đăng on a machine to what
// they promise.
package deploy_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// release builds one archive for this machine and unpacks it.
func release(t *testing.T, version string) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the release is for Linux")
	}
	for _, program := range []string{"bash", "git", "tar", "sha256sum", "find", "xargs", "gzip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the release is built with %s, which is not here", program)
		}
	}
	out := t.TempDir()
	run(t, "..", []string{"VERSION=" + version, "DIST=" + out}, "bash", "deploy/release", "linux/"+runtime.GOARCH)
	run(t, out, nil, "sha256sum", "--quiet", "-c", "SHA256SUMS")
	name := "haidang-" + version + "-linux-" + runtime.GOARCH
	run(t, out, nil, "tar", "-xzf", name+".tar.gz")
	return filepath.Join(out, name)
}

func run(t *testing.T, dir string, env []string, program string, args ...string) string {
	t.Helper()
	text, err := try(dir, env, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, text)
	}
	return text
}

func try(dir string, env []string, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// TestInstall installs a release into a scratch root, upgrades it and removes it.
func TestInstall(t *testing.T) {
	folder := release(t, "v0.0.1-test")
	root := t.TempDir()
	env := []string{"DESTDIR=" + root}
	install := filepath.Join(folder, "install")
	in := func(path string) string { return filepath.Join(root, path) }

	run(t, folder, env, install)
	if got := run(t, root, nil, in("usr/bin/haidang"), "version"); !strings.Contains(got, "v0.0.1-test") {
		t.Errorf("the installed program says %q", got)
	}
	run(t, root, nil, in("usr/bin/haidang"), "check", "--config", in("etc/haidang/gateway.yaml"))

	// What the administrator wrote outlives an upgrade; the new example lies beside it.
	mine := "gateway: mine\n"
	if err := os.WriteFile(in("etc/haidang/gateway.yaml"), []byte(mine), 0o640); err != nil {
		t.Fatal(err)
	}
	run(t, folder, env, install)
	if text, _ := os.ReadFile(in("etc/haidang/gateway.yaml")); string(text) != mine {
		t.Errorf("the upgrade wrote the configuration:\n%s", text)
	}
	for _, path := range []string{"etc/haidang/gateway.yaml.example", "usr/bin/haidang.previous", "lib/systemd/system/haidang.service", "lib/udev/rules.d/70-haidang.rules",
		"usr/share/haidang/grafana/dashboards/haidang/overview.json", "usr/share/haidang/examples/centre/gateway.yaml",
		"usr/share/haidang/prometheus/haidang.rules.yaml", "usr/share/haidang/docs/grafana.md"} {
		if _, err := os.Stat(in(path)); err != nil {
			t.Error(err)
		}
	}

	// A configuration that the new program does not accept stops the upgrade.
	if err := os.WriteFile(in("etc/haidang/gateway.yaml"), []byte("gatway: mine\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("usr/bin/haidang"), []byte("old"), 0o755); err != nil {
		t.Fatal(err)
	}
	if text, err := try(folder, env, install); err == nil || !strings.Contains(text, "gatway") || !strings.Contains(text, "nothing was changed") {
		t.Errorf("upgrade over a broken configuration: %v\n%s", err, text)
	}
	if text, _ := os.ReadFile(in("usr/bin/haidang")); string(text) != "old" {
		t.Error("a refused upgrade replaced the program")
	}

	run(t, folder, env, install, "--remove")
	for _, path := range []string{"usr/bin/haidang", "usr/share/haidang"} {
		if _, err := os.Stat(in(path)); err == nil {
			t.Errorf("%s is there after --remove", path)
		}
	}
	if _, err := os.Stat(in("etc/haidang/gateway.yaml")); err != nil {
		t.Error("--remove took the configuration", err)
	}

	// A damaged archive is not installed.
	if err := os.WriteFile(filepath.Join(folder, "haidang.service"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := try(folder, env, install); err == nil || !strings.Contains(text, "damaged") {
		t.Errorf("a damaged release: %v\n%s", err, text)
	}
}

// TestUnit has systemd itself look at the unit, where there is one.
func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not here (Debian: systemd)")
	}
	text, err := os.ReadFile("systemd/haidang.service")
	if err != nil {
		t.Fatal(err)
	}
	// The program need not be installed where the test runs.
	here := strings.ReplaceAll(string(text), "/usr/bin/haidang ", "/bin/true ")
	unit := filepath.Join(t.TempDir(), "haidang.service")
	if err := os.WriteFile(unit, []byte(here), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := try(".", nil, "systemd-analyze", "verify", "--man=no", unit); err != nil || strings.Contains(said, "haidang.service:") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, said)
	}
	said, err := try(".", nil, "systemd-analyze", "security", "--offline=true", "--threshold=25", unit)
	if err != nil {
		lines := strings.Split(strings.TrimSpace(said), "\n")
		t.Errorf("systemd-analyze security: %v: %s", err, lines[len(lines)-1])
	}
}

// A composition is a compose file as far as the tests look into it.
type composition struct {
	Name     string
	Services map[string]struct {
		Image, Restart  string
		Command         []string
		Build           struct{ Context, Dockerfile string }
		Environment     map[string]string
		Ports, Volumes  []string
		ReadOnly        bool                                  `yaml:"read_only"`
		CapDrop         []string                              `yaml:"cap_drop"`
		SecurityOpt     []string                              `yaml:"security_opt"`
		StopGracePeriod string                                `yaml:"stop_grace_period"`
		NetworkMode     string                                `yaml:"network_mode"`
		DependsOn       map[string]struct{ Condition string } `yaml:"depends_on"`
		Healthcheck     *struct {
			Test              []string
			Interval, Timeout string
			Retries           int
		}
	}
	Volumes map[string]any
}

// TestCompose checks what no container engine is needed for.
func TestCompose(t *testing.T) {
	files, err := filepath.Glob("container/compose*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatalf("%d compose files: %v", len(files), err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { testComposition(t, name) })
	}
}

func testComposition(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file composition
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("container/.env.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, variable := range regexp.MustCompile(`\$\{([A-Z_]+)`).FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(string(example), "\n"+variable[1]+"=") {
			t.Errorf("%s is not in .env.example", variable[1])
		}
	}
	for name, s := range file.Services {
		if !regexp.MustCompile(`^[a-z0-9/._-]+:\d`).MatchString(s.Image) {
			t.Errorf("%s: image %q is not pinned to a version", name, s.Image)
		}
		if other, ok := strings.CutPrefix(s.NetworkMode, "service:"); ok {
			if _, there := file.Services[other]; !there || len(s.Ports) > 0 {
				t.Errorf("%s shares the network of %q, and has ports %v", name, other, s.Ports)
			}
		}
		if h := s.Healthcheck; h != nil && (len(h.Test) < 2 || h.Test[0] != "CMD" || h.Interval == "" || h.Retries == 0) {
			t.Errorf("%s: health check %+v", name, h)
		}
		if name == "haidang" {
			runs := exec.Command("grep", "-q", `"`+s.Command[0]+`"`, "../gateway/"+s.Command[0]+".go")
			if err := runs.Run(); err != nil {
				t.Errorf("%s: there is no verb %s", name, s.Command[0])
			}
		}
		if s.Build.Dockerfile != "" {
			if _, err := os.Stat(filepath.Join("container", s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, p := range s.Ports {
			if !regexp.MustCompile(`^127\.0\.0\.1:\d+:\d+$`).MatchString(p) {
				t.Errorf("%s: port %s is open to every network, or no port", name, p)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(from, ".") {
				if _, err := os.Stat(filepath.Join("container", from)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			} else if _, ok := file.Volumes[from]; !ok {
				t.Errorf("%s: volume %s is not declared", name, from)
			}
		}
		for other, on := range s.DependsOn {
			if o, ok := file.Services[other]; !ok {
				t.Errorf("%s depends on %s, which is not there", name, other)
			} else if on.Condition == "service_healthy" && o.Healthcheck == nil && o.Build.Dockerfile == "" {
				t.Errorf("%s waits for %s, which has no health check", name, other)
			}
		}
	}
}

// TestDockerfile holds the image to what it promises: a static program, a user
// that is not root, a health check and a command of verbs that exist.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("container/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	wanted := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(module))[1]
	for _, line := range []string{
		"FROM golang:" + wanted + "-", "CGO_ENABLED=0", "FROM scratch", "ca-certificates.crt", "USER 65532:65532",
		`ENTRYPOINT ["/usr/bin/haidang"]`, `CMD ["run", "--data", "/var/lib/haidang"]`, `"/usr/bin/haidang", "health", "--data", "/var/lib/haidang"`,
	} {
		if !strings.Contains(string(text), line) {
			t.Errorf("the Dockerfile has no %s", line)
		}
	}
	// What is copied is there, and not hidden from the build.
	ignored, err := os.ReadFile("../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, copied := range regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(string(text), -1) {
		for _, name := range strings.Fields(copied[1]) {
			if _, err := os.Stat(filepath.Join("..", name)); err != nil {
				t.Error(err)
			}
			if name != "." && strings.Contains("\n"+string(ignored), "\n"+name+"\n") {
				t.Errorf("%s is copied, but not seen by the build", name)
			}
		}
	}
}

// TestAlerts has Prometheus' own tool check and test the alerts, where it is.
func TestAlerts(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("promtool is not here (Debian: prometheus; .ci/peers installs it)")
	}
	run(t, "prometheus", nil, "promtool", "check", "rules", "haidang.rules.yaml")
	run(t, "prometheus", nil, "promtool", "test", "rules", "haidang.test.yaml")
}

// TestAlertsNameWhatExists finds alerts about metrics that no source has, alerts
// that nothing tests and alerts that do not say what to do.
func TestAlertsNameWhatExists(t *testing.T) {
	text, err := os.ReadFile("prometheus/haidang.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("prometheus/haidang.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	source := sources(t)
	for _, group := range file.Groups {
		for _, r := range group.Rules {
			if !regexp.MustCompile(`\b` + r.Alert + `\b`).Match(tests) {
				t.Errorf("%s is tested nowhere", r.Alert)
			}
			if s := r.Labels["severity"]; s != "warning" && s != "critical" || r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
				t.Errorf("%s: severity %q, annotations %v", r.Alert, s, r.Annotations)
			}
			for _, verb := range regexp.MustCompile(`haidang (rules )?([a-z]+)`).FindAllStringSubmatch(r.Annotations["action"], -1) {
				if !strings.Contains(source, `name: "`+verb[2]+`"`) && verb[2] != "rules" {
					t.Errorf("%s: there is no verb %q", r.Alert, verb[0])
				}
			}
			for _, metric := range regexp.MustCompile(`haidang_[a-z0-9_]+`).FindAllString(r.Expr, -1) {
				name := strings.TrimPrefix(metric, "haidang_spool_") // these are put together
				if !strings.Contains(source, `"`+metric+`"`) && !strings.Contains(source, `"`+name+`"`) {
					t.Errorf("%s: there is no metric %s", r.Alert, metric)
				}
			}
		}
	}
}

// sources is the text of all packages, without tests.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, top := range []string{"../gateway", "../broker", "../drivers", "../rules"} {
		err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}
