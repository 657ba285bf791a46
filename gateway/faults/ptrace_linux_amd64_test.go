package faults

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// A falseClock shows a process another time of day than the machine's, whatever
// the process is: it takes the vDSO from it, so that it has to ask the kernel,
// and changes the answers to clock_gettime(CLOCK_REALTIME). The monotonic clock
// stays as it is, as it does when a clock is set.
type falseClock struct{ seconds atomic.Int64 } // ahead of the machine's clock

func (c *falseClock) set(ahead time.Duration) { c.seconds.Store(int64(ahead / time.Second)) }

const (
	clockGettime  = 228 // of linux/amd64
	noThread      = 0x20000000
	atSysinfoEHDR = 33
	atIgnore      = 1
	syscallTrap   = syscall.SIGTRAP | 0x80
	traceExitKill = 0x100000
	traceOptions  = syscall.PTRACE_O_TRACESYSGOOD | syscall.PTRACE_O_TRACECLONE | traceExitKill
)

// start is a box's started.
func (c *falseClock) start(cmd *exec.Cmd) (func() int, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	begun, ended := make(chan error), make(chan int, 1)
	go func() {
		runtime.LockOSThread() // it traces, and dies with this goroutine
		if err := c.begin(cmd); err != nil {
			begun <- err
			return
		}
		begun <- nil
		ended <- c.trace(cmd.Process.Pid)
	}()
	return func() int { return <-ended }, <-begun
}

func (c *falseClock) begin(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || !status.Stopped() {
		return fmt.Errorf("the process does not stop at its start: %v, %w", status, err)
	}
	if err := hideVDSO(pid); err != nil {
		return fmt.Errorf("hide the vDSO: %w", err)
	}
	if err := syscall.PtraceSetOptions(pid, traceOptions); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return syscall.PtraceSyscall(pid, 0)
}

// hideVDSO makes the entry of the auxiliary vector that names it one to ignore.
// The stack holds argc, the arguments, 0, the environment, 0, and the vector.
func hideVDSO(pid int) error {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	at := uintptr(regs.Rsp)
	word := func(at uintptr) (uint64, error) {
		var b [8]byte
		_, err := syscall.PtracePeekData(pid, at, b[:])
		return binary.LittleEndian.Uint64(b[:]), err
	}
	at += 8
	for zeros := 0; zeros < 2; at += 8 {
		w, err := word(at)
		if err != nil {
			return err
		}
		if w == 0 {
			zeros++
		}
	}
	for ; ; at += 16 {
		kind, err := word(at)
		if err != nil || kind == 0 {
			return err
		}
		if kind == atSysinfoEHDR {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], atIgnore)
			_, err := syscall.PtracePokeData(pid, at, b[:])
			return err
		}
	}
}

// trace lets the process run until it ends and returns its exit code.
func (c *falseClock) trace(main int) int {
	known := map[int]bool{main: true}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WALL|noThread, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return -1
		}
		if status.Exited() || status.Signaled() {
			if pid == main {
				return status.ExitStatus()
			}
			continue
		}
		deliver := 0
		switch signal := status.StopSignal(); {
		case signal == syscallTrap:
			c.change(pid)
		case signal == syscall.SIGTRAP:
		case signal == syscall.SIGSTOP && !known[pid]: // a new thread
			known[pid] = true
		default:
			deliver = int(signal)
		}
		_ = syscall.PtraceSyscall(pid, deliver) // it may just have been killed
	}
}

// change changes the answer of a clock_gettime that has just returned.
func (c *falseClock) change(pid int) {
	seconds := c.seconds.Load()
	if seconds == 0 {
		return
	}
	var regs syscall.PtraceRegs
	if syscall.PtraceGetRegs(pid, &regs) != nil || regs.Orig_rax != clockGettime || regs.Rdi != 0 || int64(regs.Rax) != 0 {
		return // another call, another clock, or not returned yet
	}
	var b [8]byte
	if _, err := syscall.PtracePeekData(pid, uintptr(regs.Rsi), b[:]); err != nil {
		return
	}
	binary.LittleEndian.PutUint64(b[:], binary.LittleEndian.Uint64(b[:])+uint64(seconds))
	_, _ = syscall.PtracePokeData(pid, uintptr(regs.Rsi), b[:])
}
