package influx

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// TestAcknowledgedPointsSurviveKill kills a process with SIGKILL while it
// writes, several times over the same folder, and looks for every point whose
// write had returned.
func TestAcknowledgedPointsSurviveKill(t *testing.T) {
	dir := t.TempDir()
	acked := -1
	for round := range 3 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "HAIDANG_INFLUX_WRITER="+dir, fmt.Sprintf("HAIDANG_INFLUX_FROM=%d", acked+1))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		killed := false
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Errorf("child says: %s", lines.Text())
				break
			}
			acked = n
			if n >= (round+1)*40 && !killed {
				killed = true
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil {
			t.Error("the child ended by itself")
		}
	}
	s := open(t, dir, quiet(), nil)
	got, err := s.Query(t.Context(), "SELECT n FROM river GROUP BY device")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 20 {
		t.Fatalf("%d devices, want 20", len(got))
	}
	for i := range got {
		for row := range got[i].Values {
			if n, _ := got[i].Number(row, "n"); int(n) != row {
				t.Fatalf("device %s row %d is %v: a point is missing", got[i].Tags["device"], row, n)
			}
		}
		if len(got[i].Values) <= acked {
			t.Errorf("device %s has %d points, %d were acknowledged", got[i].Tags["device"], len(got[i].Values), acked+1)
		}
	}
}
