// Package deploy_test holds the files that put Hải Đăng on a machine to what
// they promise.
package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
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
	for _, path := range []string{"etc/haidang/gateway.yaml.example", "usr/bin/haidang.previous", "lib/systemd/system/haidang.service", "lib/udev/rules.d/70-haidang.rules"} {
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
	if _, err := os.Stat(in("usr/bin/haidang")); err == nil {
		t.Error("the program is there after --remove")
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
