//go:build linux

package modbus

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"haidang/drivers/link/ptytest"

	"golang.org/x/sys/unix"
)

// TestMbpoll lets another maker's master read the simulated instruments that the
// tests of faults stand on, over TCP and over RTU on a pseudo-terminal: what they
// answer without a fault is Modbus, and not only what our own side takes for it.
func TestMbpoll(t *testing.T) {
	mbpoll, err := exec.LookPath("mbpoll")
	if err != nil {
		t.Skip("mbpoll is not installed (Debian: mbpoll)")
	}
	overTCP := &server{}
	address, _ := overTCP.listen(t)
	port := address[strings.LastIndexByte(address, ':')+1:]
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait) // after the pseudo-terminal is closed
	far, path := ptytest.Open(t)
	near, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0) // else the line hangs up between two masters
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	serving.Go(func() { slave(&server{}, far) })
	for name, medium := range map[string][]string{
		"TCP": {"-m", "tcp", "-p", port, "127.0.0.1"},
		"RTU": {"-m", "rtu", "-b", "9600", "-P", "none", path},
	} {
		for kind, function := range map[string]byte{"4:hex": readHolding, "3:hex": readInput} {
			args := append([]string{"-0", "-1", "-q", "-o", "2", "-a", "7", "-r", "500", "-c", "4", "-t", kind}, medium...)
			out, err := exec.Command(mbpoll, args...).CombinedOutput()
			if err != nil {
				t.Errorf("%s, %s: %v\n%s", name, kind, err, out)
				continue
			}
			got := regexp.MustCompile(`\[(\d+)\]:\s+0x([0-9A-Fa-f]{4})`).FindAllStringSubmatch(string(out), -1)
			if len(got) != 4 {
				t.Errorf("%s, %s: want 4 registers:\n%s", name, kind, out)
			}
			for i, m := range got {
				if want := fmt.Sprintf("%04X", mark(7, function, 500+i)); m[1] != fmt.Sprint(500+i) || !strings.EqualFold(m[2], want) {
					t.Errorf("%s, %s: register %s is 0x%s, want 0x%s", name, kind, m[1], m[2], want)
				}
			}
		}
	}
}
