package faults

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// A ground is what the machines of a cluster stand on: a network namespace for each
// with a cable to a bridge, where root may make them; else the loopback of this
// machine, where a cut cable is a process that stands still.
type ground struct {
	t      testing.TB
	bridge string // "" on loopback
	net    string // first three numbers of the addresses
	joined int
}

// A spot is where one machine stands.
type spot struct {
	ground *ground
	name   string
	ip     string
	space  string // network namespace; "" on loopback
	cable  string // our end of it
}

// grounds counts them, so that each has names and addresses of its own.
var grounds atomic.Int32

func newGround(t testing.TB) *ground {
	n := int(grounds.Add(1))
	g := &ground{t: t, bridge: fmt.Sprintf("hd%d-%d", os.Getpid()%1_000_000, n), net: fmt.Sprintf("10.%d.%d", 200+n%50, os.Getpid()%250)}
	if os.Geteuid() != 0 {
		t.Log("the machines share the loopback: namespaces of the network need root")
		g.bridge = ""
		return g
	}
	sweep()
	if out, err := ip("link", "add", g.bridge, "type", "bridge"); err != nil {
		t.Logf("the machines share the loopback: no bridge can be made: %v %s", err, out)
		g.bridge = ""
		return g
	}
	t.Cleanup(func() { g.must("link", "del", g.bridge) })
	g.must("addr", "add", g.net+".1/24", "dev", g.bridge)
	g.must("link", "set", g.bridge, "up")
	return g
}

func ip(args ...string) (string, error) {
	out, err := exec.Command("ip", args...).CombinedOutput()
	return string(out), err
}

// sweep removes what a test that was killed has left.
func sweep() {
	gone := func(name string) bool {
		var pid, n int
		if _, err := fmt.Sscanf(name, "hd%d-%d", &pid, &n); err != nil {
			return false
		}
		_, err := os.Stat(fmt.Sprint("/proc/", pid))
		return os.IsNotExist(err)
	}
	spaces, _ := ip("netns", "list") // what cannot be seen is left
	for line := range strings.Lines(spaces) {
		if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); gone(name) {
			_, _ = ip("netns", "del", name)
		}
	}
	links, _ := ip("-o", "link", "show")
	for line := range strings.Lines(links) {
		fields := strings.SplitN(line, ": ", 3)
		if len(fields) < 3 {
			continue
		}
		if name, _, _ := strings.Cut(fields[1], "@"); gone(name) {
			_, _ = ip("link", "del", name)
		}
	}
}

func (g *ground) must(args ...string) {
	g.t.Helper()
	if out, err := ip(args...); err != nil {
		g.t.Errorf("ip %s: %v %s", strings.Join(args, " "), err, out)
	}
}

// own is the address of the test itself, which all machines reach.
func (g *ground) own() string {
	if g.bridge == "" {
		return "127.0.0.1"
	}
	return g.net + ".1"
}

// join gives a machine a spot.
func (g *ground) join(name string) *spot {
	g.t.Helper()
	s := &spot{ground: g, name: name, ip: "127.0.0.1"}
	if g.bridge == "" {
		return s
	}
	s.space = fmt.Sprintf("%s-%s", g.bridge, name)
	g.must("netns", "add", s.space)
	g.t.Cleanup(func() { g.must("netns", "del", s.space) })
	g.must("-n", s.space, "link", "set", "lo", "up")
	g.plug(s, "eth0")
	g.must("-n", s.space, "route", "add", "default", "via", g.own())
	return s
}

// wire gives a machine of another ground, with a namespace, a cable to this one.
func (g *ground) wire(there *spot) *spot {
	g.t.Helper()
	s := &spot{ground: g, name: there.name, space: there.space}
	g.plug(s, "eth1")
	return s
}

// plug lays the cable of a spot; device is its other end.
func (g *ground) plug(s *spot, device string) {
	g.t.Helper()
	g.joined++
	s.ip = fmt.Sprintf("%s.%d", g.net, g.joined+1)
	s.cable = fmt.Sprintf("%s.%d", g.bridge, g.joined)
	g.must("link", "add", s.cable, "type", "veth", "peer", "name", device, "netns", s.space)
	// A socket that has not ended yet keeps the namespace, and with it the cable.
	g.t.Cleanup(func() { g.must("link", "del", s.cable) })
	g.must("link", "set", s.cable, "master", g.bridge, "up")
	g.must("-n", s.space, "addr", "add", s.ip+"/24", "dev", device)
	g.must("-n", s.space, "link", "set", device, "up")
}

// address is one to listen at: with the usual port where the machine is alone.
func (s *spot) address(port int) string {
	s.ground.t.Helper()
	if s.space == "" {
		return freePorts(s.ground.t, 1)[0]
	}
	return fmt.Sprintf("%s:%d", s.ip, port)
}

// inside has a command run on the spot. Its process is that of the command itself.
func (s *spot) inside(cmd *exec.Cmd) {
	if s.space == "" {
		return
	}
	path, err := exec.LookPath("ip")
	if err != nil {
		s.ground.t.Fatal(err)
	}
	cmd.Args = append([]string{path, "netns", "exec", s.space, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = path
}

// cut takes the spot off the network; process is who runs there.
func (s *spot) cut(process *os.Process) {
	s.ground.t.Helper()
	if s.space != "" {
		s.ground.must("link", "set", s.cable, "down")
	} else if err := process.Signal(syscall.SIGSTOP); err != nil {
		s.ground.t.Error(err)
	}
}

// heal puts it back.
func (s *spot) heal(process *os.Process) {
	s.ground.t.Helper()
	if s.space != "" {
		s.ground.must("link", "set", s.cable, "up")
	} else {
		_ = process.Signal(syscall.SIGCONT) // it may have ended
	}
}
