package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"haidang/gateway/telemetry"
)

// TestFromSensorToWarning follows one reading through the whole house.
func TestFromSensorToWarning(t *testing.T) {
	centre := newRecipient(t)
	g := prepare(t, fmt.Sprintf("ioc: [{name: ioc, webhook: {url: %q}}]\n", centre.url))
	g.start()
	station := g.client("station")
	g.publish(station, "telemetry/kim-long/river", `{"level_m":3.62}`)

	eventually(t, "the reading is in InfluxDB", time.Second, func() bool {
		rows := g.rows("SELECT last(level_m) FROM river GROUP BY device")
		return len(rows) == 1 && fmt.Sprint(rows[0][1]) == "3.62"
	})
	eventually(t, "the warning is at the API", time.Second, func() bool { return len(g.warnings("")) == 1 })
	w := g.warnings("")[0]
	if w.Severity != telemetry.Extreme || w.State != telemetry.Active || w.Device != "kim-long" || w.N != 1 || w.Values["level_m"] != 3.62 || w.Threshold == nil || *w.Threshold != 3.5 {
		t.Errorf("warning %+v", w)
	}
	eventually(t, "the warning is at the webhook", time.Second, func() bool { return len(centre.got()) == 1 })
	eventually(t, "the warning is in InfluxDB", time.Second, func() bool {
		rows := g.rows("SELECT severity, id FROM warning WHERE device = 'kim-long'")
		return len(rows) == 1 && fmt.Sprintf("%v %v", rows[0][1], rows[0][2]) == "4 "+w.ID
	})

	// A late subscriber gets it retained; when it clears, the topic is emptied.
	heard := make(chan paho.Message, 16)
	operator := g.client("operator")
	operator.Subscribe("warnings/#", 1, func(_ paho.Client, m paho.Message) { heard <- m }).Wait()
	if m := next(t, heard); !m.Retained() || m.Topic() != "warnings/kim-long/flood-level" || !strings.Contains(string(m.Payload()), w.ID) {
		t.Errorf("retained %v %s %s", m.Retained(), m.Topic(), m.Payload())
	}
	g.publish(station, "telemetry/kim-long/river", `{"level_m":0.5}`)
	var cleared telemetry.Warning
	if err := json.Unmarshal(next(t, heard).Payload(), &cleared); err != nil || cleared.State != telemetry.Cleared || cleared.N != 2 {
		t.Errorf("cleared: %+v, %v", cleared, err)
	}
	if m := next(t, heard); len(m.Payload()) != 0 {
		t.Errorf("the topic is not emptied: %s", m.Payload())
	}
	eventually(t, "the end is at the webhook", time.Second, func() bool { return len(centre.got()) == 2 })
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, g.output)
	}
}

func next(t *testing.T, heard chan paho.Message) paho.Message {
	t.Helper()
	select {
	case m := <-heard:
		return m
	case <-time.After(5 * time.Second):
		t.Fatal("no MQTT message within 5 s")
		return nil
	}
}

// TestRestartRaisesNothingTwice kills the gateway while a warning is active and
// the recipient is down.
func TestRestartRaisesNothingTwice(t *testing.T) {
	centre := newRecipient(t)
	centre.answer(http.StatusInternalServerError)
	g := prepare(t, fmt.Sprintf("ioc: [{name: ioc, webhook: {url: %q}}]\n", centre.url))
	g.start()
	station := g.client("station")
	g.publish(station, "telemetry/kim-long/river", `{"level_m":1.2}`)
	g.publish(station, "telemetry/kim-long/river", `{"level_m":2.4}`)
	eventually(t, "the warning has risen", 2*time.Second, func() bool {
		list := g.warnings("")
		return len(list) == 1 && list[0].Severity == telemetry.Severe
	})
	before := g.warnings("")[0]
	g.kill()

	g.start()
	after := g.warnings("")
	if len(after) != 1 || after[0].ID != before.ID || after[0].N != 2 {
		t.Fatalf("after the restart %+v, before %+v", after, before)
	}
	station = g.client("station")
	g.publish(station, "telemetry/kim-long/river", `{"level_m":2.5}`)
	g.publish(station, "telemetry/kim-long/river", `{"level_m":0.4}`)
	eventually(t, "the warning is cleared", 2*time.Second, func() bool { return len(g.warnings("")) == 0 })
	centre.answer(http.StatusOK)
	eventually(t, "the recipient has everything", 20*time.Second, func() bool {
		got := centre.got()
		return len(got) > 0 && got[len(got)-1].State == telemetry.Cleared
	})
	for key, n := range centre.keys {
		if n != 1 {
			t.Errorf("%s came %d times", key, n)
		}
	}
	if all := g.warnings("?state=all"); len(all) != 1 || all[0].N != 3 {
		t.Errorf("warnings %+v, want one with three transitions", all)
	}
}

// TestAcknowledge is two operators who act on the same transition.
func TestAcknowledge(t *testing.T) {
	g := prepare(t, "")
	g.start()
	g.publish(g.client("station"), "telemetry/kim-long/river", `{"level_m":3.62}`)
	eventually(t, "raised", 2*time.Second, func() bool { return len(g.warnings("")) == 1 })
	w := g.warnings("")[0]
	act := func(by string) int {
		response, err := http.Post("http://"+g.ports.console+"/api/v1/warnings/"+w.ID+"/ack", "application/json", strings.NewReader(fmt.Sprintf(`{"n":%d,"by":%q}`, w.N, by)))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	if first, second := act("lan"), act("minh"); first != http.StatusOK || second != http.StatusConflict {
		t.Errorf("the first got %d, the second %d; want 200 and 409", first, second)
	}
	if now := g.warnings("")[0]; now.State != telemetry.Acknowledged || now.AckedBy != "lan" || now.N != 2 {
		t.Errorf("warning %+v", now)
	}
}

// TestAISToStore sends sentences, noise and an endless line to the NMEA port.
func TestAISToStore(t *testing.T) {
	g := prepare(t, "")
	g.start()
	var conn net.Conn
	eventually(t, "the NMEA port answers", 5*time.Second, func() bool {
		var err error
		conn, err = net.Dial("tcp", g.ports.nmea)
		return err == nil
	})
	defer conn.Close()
	fmt.Fprint(conn, "noise\r\n", strings.Repeat("x", 10<<20), "\r\n",
		"!AIVDM,1,1,,B,177KQJ5000G?tO`K>RA1wUbN0TKH,0*5D\r\n", // wrong checksum
		"!AIVDM,1,1,,B,177KQJ5000G?tO`K>RA1wUbN0TKH,0*5C\r\n")
	eventually(t, "the position is in InfluxDB", 5*time.Second, func() bool {
		rows := g.rows("SELECT lat, lon, speed_kn FROM position WHERE device = 'mmsi-477553000'")
		return len(rows) == 1 && strings.HasPrefix(fmt.Sprint(rows[0][1]), "47.58") && fmt.Sprint(rows[0][3]) == "0"
	})
	if n := g.metric("haidang_ais_rejected_total", `reason="bad_checksum"`); n != 1 {
		t.Errorf("%v wrong checksums counted, want 1", n)
	}
	if n := g.metric("haidang_ais_rejected_total", `reason="line_too_long"`); n != 1 {
		t.Errorf("%v endless lines counted, want 1", n)
	}
}
