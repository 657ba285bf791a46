package link

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/tarm/serial"
	"golang.org/x/sys/unix"
)

// How the port is read: tarm/serial cannot end a read that waits, counts
// timeouts in deciseconds and reports them as io.EOF. So nobody waits in it. The
// device is opened a second time, without blocking, and that file waits in Go's
// poller: with deadlines of any length, ended by Close, woken when the device
// hangs up, and without a thread or a timer of its own. Only when it says that
// there is something to read is the port read; tarmTimeout is what a read would
// take at most if that were not so.
const tarmTimeout = 100 * time.Millisecond

// writeChunk is how much is given to the port at one time. A tty that says it
// has room takes that much without waiting (Linux WAKEUP_CHARS is 256).
const writeChunk = 128

// A port is an open serial line.
type port struct {
	target Target
	was    node // how the device looked when it was opened

	wait    *os.File     // what waits; it also locks the device
	waiter  rawWaiter    // of wait
	line    *serial.Port // what is read and written
	reading sync.Mutex   // held while the line may be read
	writing sync.Mutex   // held while it may be written
	ended   atomic.Bool  // Close was called
}

// rawWaiter is the part of syscall.RawConn that is used.
type rawWaiter interface {
	Control(func(fd uintptr)) error
	Read(func(fd uintptr) bool) error
	Write(func(fd uintptr) bool) error
}

// openSerial opens and sets a serial device, for this program alone.
func openSerial(t Target) (Stream, error) {
	p := &port{target: t, was: look(t.Address)}
	if err := p.open(); err != nil {
		if p.line != nil {
			p.line.Close()
		}
		if p.wait != nil {
			p.wait.Close()
		}
		err = fmt.Errorf("open %s: %w", t, err)
		if comesBack(err) {
			return nil, &absence{err: err, path: t.Address, was: p.was}
		}
		return nil, err
	}
	return p, nil
}

func (p *port) open() (err error) {
	if p.wait, err = os.OpenFile(p.target.Address, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0); err != nil {
		return errors.Unwrap(err) // the message names the device already
	}
	if p.waiter, err = p.wait.SyscallConn(); err != nil {
		return err
	}
	if err := p.control(claim); err != nil {
		return err
	}
	if p.line, err = serial.OpenPort(p.tarm()); err != nil {
		return err
	}
	return p.control(func(fd int) error { return set(fd, p.target.Serial) })
}

// control calls f with the file descriptor of the port.
func (p *port) control(f func(fd int) error) error {
	var failed error
	if err := p.waiter.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// claim makes sure that the file is a terminal that no other program has: flock
// is what picocom, minicom, pyserial and we ask for; others are refused by
// TIOCEXCL, see set.
func claim(fd int) error {
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
		return fmt.Errorf("it is no serial device: %w", err)
	}
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("another program has it open: %w", unix.EBUSY)
	}
	return err
}

// tarm is the line as tarm/serial knows it; set does the rest.
func (p *port) tarm() *serial.Config {
	s := p.target.Serial
	c := &serial.Config{
		Name: p.target.Address, Baud: s.Baud, ReadTimeout: tarmTimeout,
		Size: byte(s.Data), Parity: serial.Parity(s.Parity), StopBits: serial.StopBits(s.Stop),
	}
	if !slices.Contains(tarmBauds, s.Baud) {
		c.Baud = DefaultBaud
	}
	switch s.Parity {
	case MarkParity:
		c.Parity = serial.ParityOdd // mark is odd with CMSPAR
	case SpaceParity:
		c.Parity = serial.ParityEven
	}
	return c
}

// tarmBauds are the speeds that tarm/serial takes; others are set by number.
var tarmBauds = []int{
	50, 75, 110, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400,
	460800, 500000, 576000, 921600, 1000000, 1152000, 1500000, 2000000, 2500000, 3000000, 3500000, 4000000,
}

// set makes those settings that tarm/serial does not know: any speed, mark and
// space parity, flow control, RS-485; has parity checked; and refuses other
// programs.
func set(fd int, s SerialLine) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return fmt.Errorf("get the settings: %w", err)
	}
	if !slices.Contains(tarmBauds, s.Baud) {
		// termios2: with BOTHER the speeds are numbers (ioctl_tty(2)). CIBAUD 0
		// is: input as output.
		t.Cflag = t.Cflag&^(unix.CBAUD|unix.CIBAUD) | unix.BOTHER
		t.Ispeed, t.Ospeed = uint32(s.Baud), uint32(s.Baud)
	}
	if s.Parity != NoParity {
		t.Iflag |= unix.INPCK // with IGNPAR: what fails the check is dropped
	}
	if s.Parity == MarkParity || s.Parity == SpaceParity {
		t.Cflag |= unix.CMSPAR
	}
	switch s.Flow {
	case RTSCTS:
		t.Cflag |= unix.CRTSCTS
	case XonXoff:
		t.Iflag |= unix.IXON | unix.IXOFF
		t.Cc[unix.VSTART], t.Cc[unix.VSTOP] = 0x11, 0x13
	}
	if err := unix.IoctlSetTermios(fd, unix.TCSETS2, t); err != nil {
		return fmt.Errorf("set %s: %w", s, err)
	}
	if err := verify(fd, s); err != nil {
		return err
	}
	if s.RS485 {
		if err := setRS485(fd, s); err != nil {
			return err
		}
	}
	if err := unix.IoctlSetInt(fd, unix.TIOCEXCL, 0); err != nil {
		return fmt.Errorf("refuse other programs: %w", err)
	}
	return nil
}

// verify reads back what the driver made of the settings: it need not fail where
// it cannot do what it was asked for. A UART tolerates 2-3 % of speed.
func verify(fd int, s SerialLine) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return fmt.Errorf("get the settings: %w", err)
	}
	if off := int(t.Ospeed) - s.Baud; t.Ospeed != 0 && max(off, -off)*100 > 3*s.Baud {
		return fmt.Errorf("the device cannot do %d baud, it offers %d", s.Baud, t.Ospeed)
	}
	if isPty(fd) {
		return nil // it has no wire: characters have 8 bits and no parity
	}
	size := map[uint32]int{unix.CS5: 5, unix.CS6: 6, unix.CS7: 7, unix.CS8: 8}[t.Cflag&unix.CSIZE]
	checks := t.Cflag&unix.PARENB != 0
	sticks := t.Cflag&unix.CMSPAR != 0
	if size != s.Data || checks != (s.Parity != NoParity) || sticks != (s.Parity == MarkParity || s.Parity == SpaceParity) {
		return fmt.Errorf("the device cannot do %d data bits with parity %c", s.Data, s.Parity)
	}
	return nil
}

// isPty reports whether the device is the side of a pseudo-terminal that looks
// like a port: majors 136 to 143 (Linux, devices.txt).
func isPty(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	major := unix.Major(uint64(st.Rdev))
	return major >= 136 && major <= 143
}

// rs485 is struct serial_rs485 of linux/serial.h.
type rs485 struct {
	flags           uint32
	delayBeforeSend uint32 // ms
	delayAfterSend  uint32 // ms
	_               [5]uint32
}

// Flags of rs485.
const (
	rs485Enabled      = 1 << 0
	rs485RTSOnSend    = 1 << 1
	rs485RTSAfterSend = 1 << 2
)

func setRS485(fd int, s SerialLine) error {
	r := rs485{
		flags:           rs485Enabled | rs485RTSOnSend,
		delayBeforeSend: uint32(s.RTSBefore.Milliseconds()),
		delayAfterSend:  uint32(s.RTSAfter.Milliseconds()),
	}
	if s.RTSLow {
		r.flags = rs485Enabled | rs485RTSAfterSend
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSRS485, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return fmt.Errorf("set RS-485 (its driver may lack TIOCSRS485; adapters that turn round by themselves want no rs485=on): %w", errno)
	}
	return nil
}

// errHungUp is what a read or write of a device that is gone gives.
var errHungUp = errors.New("the device hung up: is it unplugged?")

// ready waits for one of the events, or says what ended the wait.
func ready(wait func(func(uintptr) bool) error, events int16) error {
	var seen int16
	err := wait(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		if _, err := unix.Poll(fds, 0); err != nil {
			return false // interrupted: the poller asks again
		}
		seen = fds[0].Revents
		return seen != 0
	})
	switch {
	case err != nil:
		return err
	case seen&events != 0:
		return nil // what came before the hang-up is read first
	}
	return errHungUp
}

// Read waits for bytes and returns those that are there. At a hang-up its error
// has the method Wait of Dial's.
func (p *port) Read(b []byte) (int, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	if len(b) == 0 {
		return 0, nil
	}
	for {
		if err := ready(p.waiter.Read, unix.POLLIN); err != nil {
			return 0, p.failed("read", err)
		}
		began := time.Now()
		n, err := p.line.Read(b)
		switch {
		case n > 0:
			return n, nil
		case errors.Is(err, io.EOF) && time.Since(began) >= tarmTimeout/2:
			continue // a timeout of the port: what was there has been flushed
		case err == nil || errors.Is(err, io.EOF):
			err = errHungUp
		}
		return 0, p.failed("read", err)
	}
}

// Write sends b. With a deadline it returns how much the device took by then.
func (p *port) Write(b []byte) (n int, err error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	for n < len(b) {
		if err := ready(p.waiter.Write, unix.POLLOUT); err != nil {
			return n, p.failed("write to", err)
		}
		m, err := p.line.Write(b[n:min(len(b), n+writeChunk)])
		n += m
		if err != nil {
			return n, p.failed("write to", err)
		}
	}
	return n, nil
}

// failed names the port in an error and lets a hang-up be waited for.
func (p *port) failed(act string, err error) error {
	switch {
	case p.ended.Load():
		return os.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case errors.Is(err, unix.EIO), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		err = errHungUp
	}
	named := fmt.Errorf("%s %s: %w", act, p.target, err)
	if errors.Is(err, errHungUp) {
		return &absence{err: named, path: p.target.Address, was: p.was}
	}
	return named
}

func (p *port) SetReadDeadline(t time.Time) error  { return p.wait.SetReadDeadline(t) }
func (p *port) SetWriteDeadline(t time.Time) error { return p.wait.SetWriteDeadline(t) }

// Close ends a read and a write that wait, and closes the device when they have
// returned.
func (p *port) Close() error {
	if p.ended.Swap(true) {
		return os.ErrClosed
	}
	busy := !p.writing.TryLock()
	if busy || p.target.Serial.Flow != NoFlow {
		// The other side may have halted us: what it does not take is thrown
		// away, or the write under way and the closing would wait for it.
		_ = p.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH) })
	}
	// A pty outlives us, and with it that others are refused.
	_ = p.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TIOCNXCL, 0) })
	err := p.wait.Close() // wakes who waits
	p.reading.Lock()      // who reads the port itself returns within tarmTimeout
	defer p.reading.Unlock()
	if busy {
		p.writing.Lock()
	}
	defer p.writing.Unlock()
	return errors.Join(err, p.line.Close())
}
