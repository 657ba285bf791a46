//go:build linux

// Package ptytest gives tests a serial device whose other end they hold: a
// pseudo-terminal, which behaves as a USB adapter does, unplugging included.
package ptytest

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Open returns the test's end of a new pseudo-terminal and the path of the
// device. Closing the test's end unplugs it; the end of the test does so too.
// Where the machine has no pseudo-terminals the test is skipped.
func Open(t testing.TB) (end *os.File, device string) {
	t.Helper()
	end, err := os.OpenFile("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { end.Close() })
	raw, err := end.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	var failed error
	if err := raw.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			number, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return end, fmt.Sprintf("/dev/pts/%d", number)
}
