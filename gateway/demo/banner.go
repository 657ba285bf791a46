package demo

import (
	"fmt"
	"net"
	"strings"
)

// banner says what is running and what to try.
func (v *View) banner() {
	a, t := v.addresses, v.terminal
	host, port, err := net.SplitHostPort(a.MQTT)
	if err != nil {
		host, port = a.MQTT, "1883"
	}
	mqtt := fmt.Sprintf("-h %s -p %s", host, port)
	var b strings.Builder
	fmt.Fprintf(&b, "%s: a simulated field speaks to a gateway on this machine.\n", t.paint(bold, "Hải Đăng demo"))
	b.WriteString("Within a minute a flood like that of 27 October 2025 passes Kim Long; it comes\nback every 90 seconds. One boat falls silent and one leaves its fishing ground.\n\n")
	for _, row := range [][2]string{
		{"Warnings page", fmt.Sprintf("http://%s/", a.Console)},
		{"Warnings as JSON", fmt.Sprintf("curl http://%s/api/v1/warnings", a.Console)},
		{"What was stored", fmt.Sprintf("curl -G http://%s/query -d db=haidang \\", a.Influx)},
		{"", "--data-urlencode 'q=SELECT last(level_m) FROM river GROUP BY device'"},
		{"What the centre got", fmt.Sprintf("curl http://%s/received", a.IOC)},
		{"Hear warnings", fmt.Sprintf("mosquitto_sub %s -t 'warnings/#' -v", mqtt)},
		{"Be a station", fmt.Sprintf("mosquitto_pub %s -q 1 \\", mqtt)},
		{"", "-t telemetry/kim-long/river -m '{\"level_m\": 3.62}'"},
		{"Stop", "Ctrl-C"},
	} {
		if row[0] == "" {
			fmt.Fprintf(&b, "    %s\n", row[1]) // goes on from the row above
			continue
		}
		fmt.Fprintf(&b, "  %s  %s\n", t.paint(cyan, pad(row[0], 19)), row[1])
	}
	b.WriteString("\n")
	v.mu.Lock()
	defer v.mu.Unlock()
	v.write(b.String())
}
