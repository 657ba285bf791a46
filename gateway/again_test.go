package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAgain: what CI runs once more, and what is final.
func TestAgain(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("there is no bash")
	}
	const ok, bad = "ok  \thaidang/rules\t1.0s\n", "FAIL\thaidang/broker\t1.0s\nFAIL\nmake: *** [race] Error 1\n"
	one := ok + "--- FAIL: TestOne (1.0s)\n    --- FAIL: TestOne/part (0.5s)\n        a_test.go:1: late\n"
	for _, test := range []struct {
		name, log, ran string
		passes         bool // what is run again does
		well           bool
	}{
		{"one test that passes then", one + bad, "-count=3 -run ^(TestOne)$ haidang/broker", true, true},
		{"one that fails again", one + bad, "-count=3 -run ^(TestOne)$ haidang/broker", false, false},
		{"two", one + "--- FAIL: TestTwo (1s)\n" + bad, "-count=3 -run ^(TestOne|TestTwo)$ haidang/broker", true, true},
		{"three", one + "--- FAIL: TestTwo (1s)\n--- FAIL: TestThree (1s)\n" + bad, "", true, false},
		{"two packages", one + "FAIL\thaidang/broker\t1.0s\n" + ok + "--- FAIL: TestTwo (1s)\nFAIL\thaidang/rules\t1s\n", "-count=3 -run ^(TestOne)$ haidang/broker\n-count=3 -run ^(TestTwo)$ haidang/rules", true, true},
		{"a data race", "WARNING: DATA RACE\n" + one + bad, "", true, false},
		{"a panic", one + "panic: no\n" + bad, "", true, false},
		{"a time that ran out", one + "panic: test timed out after 10m0s\n" + bad, "", true, false},
		{"a package that does not compile", "FAIL\thaidang/broker [build failed]\n", "", true, false},
		{"a package that ended by itself", ok + bad, "", true, false},
		{"the race detector's own fault", ok + "ThreadSanitizer: CHECK failed: tsan_rtl.cpp:346\n" + bad, "-count=1 -run . haidang/broker", true, true},
		{"no test at all", "gateway/a.go:1: vet: no\nmake: *** [test] Error 1\n", "", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			script, err := filepath.Abs("../.ci/again")
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, ".ci"), 0o755); err != nil {
				t.Fatal(err)
			}
			log, command := filepath.Join(dir, "log"), filepath.Join(dir, "command")
			exit := "exit 1"
			if test.passes {
				exit = "exit 0"
			}
			for path, text := range map[string]string{log: test.log, command: "#!/bin/sh\necho \"$@\" >> ran\n" + exit + "\n"} {
				if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			again := exec.Command("bash", script, log, command)
			again.Dir = dir
			out, err := again.CombinedOutput()
			if (err == nil) != test.well {
				t.Errorf("%v: %s", err, out)
			}
			ran, _ := os.ReadFile(filepath.Join(dir, "ran")) // there is none if nothing ran
			if got := strings.TrimSpace(string(ran)); got != test.ran {
				t.Errorf("ran %q, want %q", got, test.ran)
			}
			odd, _ := os.ReadFile(filepath.Join(dir, ".ci", "odd"))
			if test.well != strings.Contains(string(odd), "haidang/broker") {
				t.Errorf("noted: %q", odd)
			}
		})
	}
}
