//go:build linux

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A disk is an ext4 file system of its own, in a file.
type disk struct {
	t      testing.TB
	image  string
	dir    string // where it is mounted
	device string // the loop device behind it
}

// newDisk makes and mounts a file system, and skips the test where this machine
// does not let us.
func newDisk(t testing.TB, bytes int64) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	for _, tool := range []string{"mkfs.ext4", "losetup", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("mounting a file system needs %s", tool)
		}
	}
	folder := t.TempDir()
	d := &disk{t: t, image: filepath.Join(folder, "image"), dir: filepath.Join(folder, "disk")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, bytes); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", d.image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		_ = exec.Command("umount", d.dir).Run()
		_ = exec.Command("losetup", "-d", d.device).Run()
	})
	if err := d.mount(); err != nil {
		t.Skipf("a file system in a file cannot be mounted here: %v", err)
	}
	return d
}

// mount mounts the image with a loop device of its own each time: the device from
// before a cut may be held by a namespace that somebody made meanwhile (ip netns
// exec copies all mounts), and what is mounted from it is still shut down.
func (d *disk) mount() error {
	out, err := exec.Command("losetup", "--find", "--show", d.image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("losetup: %w: %s", err, out)
	}
	d.device = strings.TrimSpace(string(out))
	if out, err := exec.Command("mount", d.device, d.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount %s: %w: %s", d.device, err, out)
	}
	return nil
}

// freeze stops the process where it is: what waits for the disk goes on waiting.
func (g *box) freeze() {
	g.t.Helper()
	if err := g.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		g.t.Fatal(err)
	}
	g.eventually("every thread stands still or waits for the disk", 5*time.Second, func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", g.cmd.Process.Pid))
		if err != nil || len(threads) == 0 {
			g.t.Fatalf("look at the threads: %v", err)
		}
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if err != nil {
				continue // it has ended
			}
			_, rest, _ := strings.Cut(string(text), ") ")
			if rest != "" && !strings.Contains("TtDXZ", rest[:1]) {
				return false
			}
		}
		return true
	})
}

// cut is a power cut: what was not synced is gone, as with EXT4_IOC_SHUTDOWN and
// EXT4_GOING_FLAGS_NOLOGFLUSH of linux/fs/ext4/ext4.h.
func (d *disk) cut() {
	d.t.Helper()
	const shutdown, noLogFlush = 0x8004587d, 2
	folder, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer folder.Close()
	if err := unix.IoctlSetPointerInt(int(folder.Fd()), shutdown, noLogFlush); err != nil {
		d.t.Skipf("this kernel does not shut down ext4: %v", err)
	}
}

// remount mounts it again after a cut; nobody may have a file of it open.
func (d *disk) remount() {
	d.t.Helper()
	deadline := time.Now().Add(5 * time.Second * slowness())
	for {
		out, err := exec.Command("umount", d.dir).CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("umount: %v: %s", err, out)
		}
		<-time.After(20 * time.Millisecond)
	}
	if out, err := exec.Command("losetup", "-d", d.device).CombinedOutput(); err != nil {
		d.t.Fatalf("losetup -d: %v: %s", err, out)
	}
	if err := d.mount(); err != nil {
		d.t.Fatal(err)
	}
}

// free returns the bytes that are free.
func (d *disk) free() int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		d.t.Fatal(err)
	}
	return int64(st.Bavail) * int64(st.Bsize) // of 32 bits on arm
}

// fill takes all but so many bytes of the disk away, until empty.
func (d *disk) fill(leave int64) {
	d.t.Helper()
	name := filepath.Join(d.dir, fmt.Sprint("ballast-", time.Now().UnixNano()))
	file, err := os.Create(name)
	if err != nil {
		d.t.Fatal(err)
	}
	defer file.Close()
	for size := d.free() - leave; size > 0; size = d.free() - leave {
		if err := unix.Fallocate(int(file.Fd()), 0, fileSize(file), size); err != nil {
			if size < 64<<10 {
				return
			}
			_ = unix.Fallocate(int(file.Fd()), 0, fileSize(file), size/2)
		}
	}
}

func fileSize(file *os.File) int64 {
	st, err := file.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

// empty gives back what fill took.
func (d *disk) empty() {
	d.t.Helper()
	names, err := filepath.Glob(filepath.Join(d.dir, "ballast-*"))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			d.t.Fatal(err)
		}
	}
}
