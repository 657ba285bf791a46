package link

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// lookEvery is how often a missing device is looked for. Looking costs two stat
// calls; a folder such as /dev/serial/by-id, which goes with its last device,
// cannot be watched.
const lookEvery = 250 * time.Millisecond

// A node is how a device's path looks: itself, and what it leads to. It changes
// when the device is unplugged, plugged in again or made accessible.
type node struct{ name, device identity }

type identity struct {
	there      bool
	dev, inode uint64
	number     uint64 // of the device
	changed    int64  // of a link, ns
	mode       fs.FileMode
	user       uint32
	group      uint32
}

func look(path string) node {
	var n node
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		n.name = identify(info)
		n.name.changed = info.ModTime().UnixNano()
	}
	if info, err := os.Stat(path); err == nil {
		n.device = identify(info)
	}
	return n
}

func identify(info fs.FileInfo) identity {
	id := identity{there: true, mode: info.Mode()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		id.dev, id.inode, id.number = uint64(s.Dev), s.Ino, uint64(s.Rdev)
		id.user, id.group = s.Uid, s.Gid
	}
	return id
}

// An absence is the error of a device that is not there, or not yet ours: it
// can come back at any moment.
type absence struct {
	err  error
	path string
	was  node // at the failure
}

func (a *absence) Error() string { return a.err.Error() }
func (a *absence) Unwrap() error { return a.err }

// Wait returns nil when the device is there and is not as it was at the
// failure, or the context's error.
func (a *absence) Wait(ctx context.Context) error {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	was := a.was
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticks.C:
		}
		now := look(a.path)
		if now != was && now.device.there {
			return nil
		}
		was = now
	}
}

// comesBack reports whether opening a device failed as it does while it is
// unplugged, or in the moment before the system has given us access to it.
func comesBack(err error) bool {
	for _, e := range []error{syscall.ENOENT, syscall.ENXIO, syscall.ENODEV, syscall.EIO, syscall.EACCES} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
