package spool

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// suite are the tests of the contract that holds wherever the log is. Those that
// are not among them look into the files of an embedded log, or need no log. They
// run in several processes at once: in a cluster they wait more than they work.
var suite = [][]string{
	{"TestAppendAndFollow", "TestWarningsAndLetters", "TestOrder", "TestRestartContinues", "TestLagOfManualFollower", "TestPace"},
	{"TestFollowersOfReadingsAreForgotten", "TestReadingsAreEmptied", "TestFollowRetries", "TestDamagedFrames", "TestRefuse", "TestAfterClose"},
	{"TestDropOldest", "TestSplitAndUnwritable", "TestStoreLines", "TestCheckpoints", "TestSilence"},
	{"TestReplayEndsAtBadFrame", "TestFollowFromBeyond", "TestSourcesOfReadings", "TestNothingIsLeft"},
	{"TestLettersAreRefusedForAWhile", "TestLettersAreRefusedForGood"},
}

// TestSuiteOverCluster runs the suite again with the logs in a server of its own;
// with HAIDANG_CLUSTER in a cluster of three, each frame on all of them.
func TestSuiteOverCluster(t *testing.T) {
	if os.Getenv(overCluster) != "" {
		t.Skip("this is the run in the cluster")
	}
	t.Parallel()
	size := 1
	if os.Getenv("HAIDANG_CLUSTER") != "" {
		size = 3
	}
	c := startCluster(t, "suite", size)
	accounts := t.TempDir()
	var group sync.WaitGroup
	for _, part := range suite { // all at once, whatever -parallel says
		group.Go(func() { runPart(t, part, fmt.Sprintf("%s=%s %d %s", overCluster, c.url(), len(c.ports), accounts)) })
	}
	group.Wait()
}

func runPart(t *testing.T, part []string, environment string) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.shuffle=on", "-test.run=^("+strings.Join(part, "|")+")$")
	cmd.Env = append(os.Environ(), environment)
	out, err := cmd.CombinedOutput()
	passed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^--- PASS: (\w+) `).FindAllSubmatch(out, -1) {
		passed[string(m[1])] = true
	}
	for _, name := range part {
		if !passed[name] {
			t.Errorf("%s did not pass over a cluster", name)
			err = cmp.Or(err, errors.New("not all have passed"))
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
