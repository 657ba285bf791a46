package faults

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// variable chooses what is run: ci or full.
const variable = "HAIDANG_FAULTS"

// HAIDANG_BINARY names a haidang that is there already, such as a release.
const ready = "HAIDANG_BINARY"

// haidangPath is the path of the haidang under test, made once for all tests.
var haidangPath = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(ready); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "haidang-faults-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "haidang")
	build := exec.Command("go", "build", "-o", path, "haidang/gateway")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return path, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	if dir := os.Getenv(engineVariable); dir != "" {
		if err := engineMain(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	results.print()
	if os.Getenv(variable)+os.Getenv(loadVariable)+os.Getenv(clusterVariable) != "" && os.Getenv(ready) == "" {
		if path, _ := haidangPath(); path != "" {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}
	os.Exit(code)
}

// timesVariable is how often each fault is done with full, in place of its own number.
const timesVariable = "HAIDANG_FAULTS_TIMES"

// times returns how often a fault is done, and skips the test where faults are
// not asked for.
func times(t *testing.T, ci, full int) int {
	t.Helper()
	switch mode := os.Getenv(variable); mode {
	case "ci":
		return ci
	case "full":
		if text := os.Getenv(timesVariable); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				t.Fatalf("%s is %q, expected a number from 1", timesVariable, text)
			}
			return n
		}
		return full
	case "":
		t.Skipf("set %s to ci or full (make faults-ci, make faults)", variable)
	default:
		t.Fatalf("%s is %q, expected ci or full", variable, mode)
	}
	return 0
}

// A row is what one fault came to.
type row struct {
	fault        string
	times        int
	acknowledged int
	lost         int
	doubled      int
	expected     int // warnings
	missed       int // warnings
	recovery     time.Duration
	remark       string
}

// table is of all tests; it is printed at the end.
type table struct {
	mu   sync.Mutex
	rows []row
}

var results table

func (r *table) add(line row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, line)
}

func (r *table) print() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rows) == 0 {
		return
	}
	slices.SortStableFunc(r.rows, func(a, b row) int { return cmp.Compare(a.fault, b.fault) })
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-34s %6s %12s %5s %7s %8s %6s %9s  %s\n", "fault", "times", "acknowledged", "lost", "doubled", "warnings", "missed", "recovery", "")
	for _, l := range r.rows {
		fmt.Fprintf(&b, "%-34s %6d %12d %5d %7d %8d %6d %9s  %s\n", l.fault, l.times, l.acknowledged, l.lost, l.doubled, l.expected, l.missed, l.recovery.Round(10*time.Millisecond), l.remark)
	}
	fmt.Print(b.String())
}
