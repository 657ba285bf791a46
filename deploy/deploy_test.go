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
	"syscall"
	"testing"
	"time"

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

// A scratch is a root folder that a release is installed into.
type scratch struct {
	t      *testing.T
	folder string // of the unpacked release
	root   string
}

func (s scratch) in(path string) string { return filepath.Join(s.root, path) }

// install runs the install script.
func (s scratch) install(args ...string) (string, error) {
	return try(s.folder, []string{"DESTDIR=" + s.root}, filepath.Join(s.folder, "install"), args...)
}

// installs runs it and fails where it fails.
func (s scratch) installs(args ...string) {
	s.t.Helper()
	if text, err := s.install(args...); err != nil {
		s.t.Fatalf("install %v: %v\n%s", args, err, text)
	}
}

func (s scratch) write(path, text string, mode os.FileMode) {
	s.t.Helper()
	if err := os.WriteFile(s.in(path), []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s scratch) holds(path, want string) {
	s.t.Helper()
	text, err := os.ReadFile(s.in(path))
	if err != nil || !strings.Contains(string(text), want) {
		s.t.Errorf("%s holds %.80q, want %q: %v", path, text, want, err)
	}
}

// TestInstall installs a release into a scratch root, upgrades it, goes back and
// removes it: what the administrator wrote and what was measured outlive all of it.
func TestInstall(t *testing.T) {
	s := scratch{t, release(t, "v0.0.1-test"), t.TempDir()}
	s.installs()
	if got := run(t, s.root, nil, s.in("usr/bin/haidang"), "version"); !strings.Contains(got, "v0.0.1-test") {
		t.Errorf("the installed program says %q", got)
	}
	run(t, s.root, nil, s.in("usr/bin/haidang"), "check", "--config", s.in("etc/haidang/gateway.yaml"))
	if text, err := s.install("--rollback"); err == nil || !strings.Contains(text, "nothing was upgraded") {
		t.Errorf("going back from a first installation: %v\n%s", err, text)
	}
	for _, path := range []string{"lib/systemd/system/haidang.service", "lib/udev/rules.d/70-haidang.rules", "etc/haidang/environment",
		"usr/share/haidang/grafana/dashboards/haidang/overview.json", "usr/share/haidang/examples/centre/gateway.yaml",
		"usr/share/haidang/prometheus/haidang.rules.yaml", "usr/share/haidang/docs/grafana.md", "usr/share/haidang/docs/configuration.md"} {
		if _, err := os.Stat(s.in(path)); err != nil {
			t.Error(err)
		}
	}

	const mine = "gateway: mine\n"
	s.write("etc/haidang/gateway.yaml", mine, 0o640)
	s.write("etc/haidang/environment", "IOC_SECRET=of mine\n", 0o640)
	s.write("var/lib/haidang/readings", "of years", 0o640)
	s.write("usr/share/haidang/left-over", "of an older release", 0o644)
	s.write("usr/bin/haidang", "#!/bin/sh\necho haidang of before\n", 0o755)
	s.installs()
	s.holds("etc/haidang/gateway.yaml", mine)
	s.holds("etc/haidang/gateway.yaml.example", "kim-long-box") // the new example lies beside it
	s.holds("usr/bin/haidang.previous", "of before")
	if _, err := os.Stat(s.in("usr/share/haidang/left-over")); err == nil {
		t.Error("a file of an older release is left")
	}

	s.installs("--rollback")
	s.holds("usr/bin/haidang", "of before")
	s.installs("--rollback")
	s.holds("usr/bin/haidang.previous", "of before")
	s.refuses()

	s.installs("--remove")
	for _, path := range []string{"usr/bin/haidang", "usr/bin/haidang.previous", "usr/share/haidang", "lib/systemd/system/haidang.service"} {
		if _, err := os.Stat(s.in(path)); err == nil {
			t.Errorf("%s is there after --remove", path)
		}
	}
	s.holds("var/lib/haidang/readings", "of years")
	s.holds("etc/haidang/environment", "of mine")

	// A damaged archive is not installed.
	if err := os.WriteFile(filepath.Join(s.folder, "haidang.service"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := s.install(); err == nil || !strings.Contains(text, "damaged") {
		t.Errorf("a damaged release: %v\n%s", err, text)
	}
}

// refuses upgrades over a configuration that the new program does not accept, and
// goes back to a program that does not run.
func (s scratch) refuses() {
	s.t.Helper()
	const broken = "gatway: mine\n"
	s.write("etc/haidang/gateway.yaml", broken, 0o640)
	s.write("usr/bin/haidang", "old", 0o755)
	if text, err := s.install(); err == nil || !strings.Contains(text, "gatway") || !strings.Contains(text, "nothing was changed") {
		s.t.Errorf("upgrade over a broken configuration: %v\n%s", err, text)
	}
	s.holds("usr/bin/haidang", "old")
	s.write("usr/bin/haidang.previous", "#!/bin/sh\nexit 1\n", 0o755)
	if text, err := s.install("--rollback"); err == nil || !strings.Contains(text, "does not run") {
		s.t.Errorf("going back to a program that does not run: %v\n%s", err, text)
	}
	s.holds("usr/bin/haidang", "old")
}

// TestReleaseRuns builds the whole release twice, which gives the same archives, and
// runs the programs for other machines in an emulator: version, check, and the demo
// until its readings are stored. A store that a machine of 32 bits cannot write to
// is found here.
func TestReleaseRuns(t *testing.T) {
	if os.Getenv("HAIDANG_RELEASE") == "" {
		t.Skip("cross-builds for minutes; make release-check runs it")
	}
	var sums []string
	out := ""
	for range 2 {
		out = t.TempDir()
		run(t, "..", []string{"VERSION=v0.0.1-test", "DIST=" + out}, "bash", "deploy/release")
		text, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, string(text))
	}
	if sums[0] != sums[1] || strings.Count(sums[0], "\n") != 3 {
		t.Errorf("two releases of one commit:\n%s%s", sums[0], sums[1])
	}
	for machine, emulator := range map[string]string{"arm64": "qemu-aarch64-static", "armv7": "qemu-arm-static"} {
		t.Run(machine, func(t *testing.T) {
			if _, err := exec.LookPath(emulator); err != nil {
				t.Skipf("%s is not here (Debian: qemu-user-static)", emulator)
			}
			name := "haidang-v0.0.1-test-linux-" + machine
			run(t, out, nil, "tar", "-xzf", name+".tar.gz")
			program := filepath.Join(out, name, "haidang")
			if info, err := os.Stat(program); err == nil {
				t.Logf("%d bytes", info.Size())
			}
			if said := run(t, out, nil, emulator, program, "version"); !strings.Contains(said, "v0.0.1-test") {
				t.Errorf("version: %s", said)
			}
			run(t, out, nil, emulator, program, "check", "--config", filepath.Join(out, name, "example/gateway.yaml"))
			// In a network of its own, since the demo's ports may be taken here.
			script := `ip link set lo up
"$1" "$2" demo --data "$3" >"$3.log" 2>&1 & gateway=$!
for i in $(seq 120); do
  sleep 1
  curl -s -G http://127.0.0.1:8086/query --data-urlencode db=haidang --data-urlencode 'q=SELECT count(level_m) FROM river' | grep -q '"river"' && break
done
kill -TERM $gateway; wait $gateway; code=$?
[ $i -lt 120 ] && [ $code -eq 0 ] || { cat "$3.log"; exit 1; }`
			run(t, out, nil, "unshare", "--net", "sh", "-c", script, "sh", emulator, program, filepath.Join(t.TempDir(), "data"))
		})
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
	said, err := try(".", nil, "systemd-analyze", "security", "--offline=true", "--threshold=20", unit)
	if err != nil {
		lines := strings.Split(strings.TrimSpace(said), "\n")
		t.Errorf("systemd-analyze security: %v: %s", err, lines[len(lines)-1])
	}
}

// A composition is a compose file as far as the tests look into it.
type composition struct {
	Name     string
	Nats     any `yaml:"x-nats"` // what services have in common
	NatsEnv  any `yaml:"x-nats-environment"`
	Haidang  any `yaml:"x-haidang"`
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
	files, err := filepath.Glob("c*/compose*.yaml")
	if err != nil || len(files) != 3 {
		t.Fatalf("%d compose files: %v", len(files), err)
	}
	for _, name := range files {
		t.Run(name, func(t *testing.T) { testComposition(t, name) })
	}
}

// TestE2EComposeSpec has the loader that Docker Compose itself has read the files
// strictly: their keys, types and references are those of the Compose
// Specification.
func TestE2EComposeSpec(t *testing.T) {
	if os.Getenv("HAIDANG_E2E") == "" {
		t.Skip("builds a tool; make e2e runs it")
	}
	load := func(file string) (string, error) {
		return try("container", nil, "go", "tool", "-modfile=../../.ci/tools/go.mod", "github.com/compose-spec/compose-go/v2/cmd", "-no-interpolation", file)
	}
	for _, file := range []string{"compose.yaml", "compose.demo.yaml", "../cluster/compose.yaml"} {
		if text, err := load(file); err != nil || !strings.Contains(text, "services:") {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
	}
	wrong := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(wrong, []byte("services: {a: {image: x, portz: [1]}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := load(wrong); err == nil || !strings.Contains(text, "portz") {
		t.Errorf("a wrong key was not found: %v\n%s", err, text)
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
	folder := filepath.Dir(path)
	example, err := os.ReadFile(filepath.Join(folder, ".env.example"))
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
		if strings.HasPrefix(s.Image, "haidang:") {
			runs := exec.Command("grep", "-q", `"`+s.Command[0]+`"`, "../gateway/"+s.Command[0]+".go")
			if err := runs.Run(); err != nil {
				t.Errorf("%s: there is no verb %s", name, s.Command[0])
			}
		}
		if s.Build.Dockerfile != "" {
			if _, err := os.Stat(filepath.Join(folder, s.Build.Context, s.Build.Dockerfile)); err != nil {
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
				if _, err := os.Stat(filepath.Join(folder, from)); err != nil {
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

// TestE2EImage does without a container engine what the Dockerfile does: it builds
// by the file's own command, and runs entry point, command and health check with the
// image's paths in a scratch root, as its user, on a root that cannot be written.
func TestE2EImage(t *testing.T) {
	if os.Getenv("HAIDANG_E2E") == "" || os.Geteuid() != 0 {
		t.Skip("builds the program and changes root; make e2e runs it as root")
	}
	text, err := os.ReadFile("container/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	find := func(pattern string) string {
		m := regexp.MustCompile(pattern).FindStringSubmatch(string(text))
		if m == nil {
			t.Fatalf("the Dockerfile has no %s", pattern)
		}
		return m[1]
	}
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "var/lib/haidang", "tmp", "dev", "proc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := strings.ReplaceAll(find(`RUN (CGO_ENABLED=0 go build .*) \\\n`), "-o /haidang", "-o "+root+"/usr/bin/haidang")
	run(t, "..", []string{"VERSION=v0.0.1-image"}, "bash", "-c", build)
	if err := os.Chown(filepath.Join(root, "var/lib/haidang"), 65532, 65532); err != nil {
		t.Fatal(err)
	}
	words := func(list string) []string {
		var out []string
		if err := yaml.Unmarshal([]byte(list), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	command := append(words(find(`(?m)^ENTRYPOINT (.*)$`)), words(find(`(?m)^CMD (.*)$`))...)
	health := words(find(`(?m)^HEALTHCHECK .* CMD (.*)$`))
	inside := func(args []string) *exec.Cmd {
		// With a loopback of its own, since the default ports may be taken here.
		script := `ip link set lo up && mount -t proc proc "$1/proc" && exec chroot --userspec=65532:65532 "$@"`
		return exec.Command("unshare", append([]string{"--net", "--mount", "sh", "-c", script, "sh", root}, args...)...)
	}
	if out, err := inside([]string{"/usr/bin/haidang", "version"}).CombinedOutput(); err != nil || !strings.Contains(string(out), "v0.0.1-image") {
		t.Skipf("no root and network of its own can be had here: %v %s", err, out)
	}
	gateway := inside(command)
	var said bytes.Buffer
	gateway.Stdout, gateway.Stderr = &said, &said
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := gateway.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := gateway.Wait(); err != nil {
			t.Errorf("it ended with %v\n%s", err, said.String())
		}
	}()
	deadline := time.Now().Add(40 * time.Second)
	for {
		out, err := inside(health).CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not healthy: %v %s\n%s", err, out, said.String())
		}
		<-time.After(200 * time.Millisecond)
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
