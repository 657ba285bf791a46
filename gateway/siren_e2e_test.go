package main

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// relayServer is a Modbus TCP relay with coils, of pymodbus.
const relayServer = `
import sys
from pymodbus.datastore import ModbusSequentialDataBlock, ModbusSlaveContext, ModbusServerContext
from pymodbus.server import StartTcpServer
coils = ModbusSequentialDataBlock(0, [0] * 20)
store = ModbusSlaveContext(hr=coils, ir=coils, co=coils, di=coils, zero_mode=True)
host, port = sys.argv[1].split(":")
StartTcpServer(context=ModbusServerContext(slaves={5: store}, single=False), address=(host, int(port)))
`

// TestE2ESiren switches a relay that others have written, and reads it with mbpoll:
// a test pulse, an alarm, its acknowledgement, a power cut of the relay while the
// gateway is killed, and the gateway's end.
func TestE2ESiren(t *testing.T) {
	needPeers(t, "mbpoll")
	if out, err := exec.Command("/usr/bin/python3", "-c", "import pymodbus").CombinedOutput(); err != nil {
		t.Skipf("python3-pymodbus is missing (.ci/peers installs it): %s", out)
	}
	relay := peer(t, func(address string) *exec.Cmd { return exec.Command("/usr/bin/python3", "-c", relayServer, address) })
	host, port, err := net.SplitHostPort(relay)
	if err != nil {
		t.Fatal(err)
	}
	poll := func(more ...string) string {
		out, err := exec.Command("mbpoll", append([]string{"-m", "tcp", "-p", port, "-a", "5", "-0", "-r", "3", "-t", "0", "-1", "-q", host}, more...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("mbpoll: %v\n%s", err, out)
		}
		return string(out)
	}
	sounds := func(what string, want bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s: the siren sounds: %v", what, want), 10*time.Second, func() bool { return strings.Contains(poll(), "\t1") == want })
	}
	g := prepare(t, fmt.Sprintf(`
profiles: profiles
modbus: [{name: relays, connect: "tcp://%s", interval: 5s, units: [{id: 5, device: siren-1, profile: relay-siren, writes: [siren]}]}]
ioc: [{name: siren, siren: {line: relays, unit: siren-1, setting: siren}}]
`, relay))
	g.write("profiles/relay-siren.yaml", "name: relay-siren\ntitle: relay\nregisters: [{value: siren.on, address: 3, table: coil}]\nwrites: [{name: siren, address: 3, table: coil}]\n")
	poll("1") // whatever was before the start
	g.start()
	sounds("at the start", false)
	if out := g.must("recipients", "test", "siren", "--why", "hằng tháng"); !strings.Contains(out, "siren: taken after 1.") {
		t.Errorf("the test: %s", out)
	}
	sounds("after the test", false)
	c := g.client("station")
	g.publish(c, "telemetry/kim-long/river", `{"level_m":5}`)
	sounds("an alarm", true)
	g.must("warnings", "ack", g.warnings("")[0].ID, "--text", "đã gọi")
	sounds("acknowledged", false)
	g.publish(c, "telemetry/phu-oc/river", `{"level_m":9}`)
	sounds("another one", true)
	g.kill()
	poll("0")
	g.start()
	sounds("the relay had lost power", true)
	if code := g.stop(); code != exitWell {
		t.Errorf("exit code %d\n%s", code, g.output)
	}
	sounds("nobody is there to switch it off later", false)
	config := read(t, g.dir, "gateway.yaml")
	for from, want := range map[string]string{
		"writes: [siren]": `ioc[0].siren.setting: unit siren-1 does not allow the write "siren"`, "unit: siren-1, setting": `ioc[0].siren.unit: line "relays" has no unit "siren-9"; it has 5`,
	} {
		g.write("wrong.yaml", strings.Replace(config, from, map[bool]string{true: "writes: []", false: "unit: siren-9, setting"}[from == "writes: [siren]"], 1))
		code, _, problems := typed(t, "", "check", "--config", filepath.Join(g.dir, "wrong.yaml"))
		if code != exitUsage || !strings.Contains(problems, want) {
			t.Errorf("%s: %d %s", want, code, problems)
		}
	}
}
