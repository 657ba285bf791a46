package modbus

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestMain fails the run when a goroutine outlives the tests.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		os.Exit(code) // fuzzing keeps a goroutine for signals
	}
	deadline := time.After(5 * time.Second)
	for runtime.NumGoroutine() > before {
		select {
		case <-deadline:
			stacks := make([]byte, 1<<16)
			fmt.Fprintf(os.Stderr, "%d goroutines are left, %d at the start:\n%s\n", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			os.Exit(1)
		case <-time.After(10 * time.Millisecond):
		}
	}
	os.Exit(code)
}
