package broker

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct{ doc, want string }{
		{"{}", ""},
		{"listen: localhost:1883", ""},
		{"listen: '[::1]:1883'", ""},
		{"listen: ''", "listen: no listener: give an address such as 127.0.0.1:1883"},
		{"listen: 0.0.0.0:1883", "listen: address \"0.0.0.0:1883\" is not on loopback, and there are no accounts to protect it: make one with `haidang account add`, or use 127.0.0.1:1883"},
		{"listen: ':1883'", "listen: address \":1883\" is not on loopback, and there are no accounts to protect it: make one with `haidang account add`, or use 127.0.0.1:1883"},
		{"websocket: {listen: 192.168.1.2:8083}", "websocket.listen: address \"192.168.1.2:8083\" is not on loopback, and there are no accounts to protect it: make one with `haidang account add`, or use 127.0.0.1:8083"},
		{"websocket: {listen: 127.0.0.1:8083, key: b}", "websocket.cert: the file of the certificate is missing"},
		{"limits: {messages_per_s: -1, levels: 2, over_rate: kill}", "limits.messages_per_s: messages_per_s -1 is not in 0..10000000;limits.levels: levels 2 is not in 3..128;limits.over_rate: over_rate \"kill\" is not one of slow, disconnect"},
		{"limits: {packet_bytes: 65536, queue: 10}", ""},
		{"listen: 127.0.0.1", "listen: address \"127.0.0.1\" is not host:port, such as 127.0.0.1:1883"},
		{"listen: 127.0.0.1:mqtt", "listen: port \"mqtt\" is not in 0..65535"},
		{"max_clients: 0", "max_clients: max_clients 0 is not in 1..100000"},
		{"tls: {listen: 127.0.0.1:8883}", "tls.cert: the file of the certificate is missing"},
		{"tls: {listen: 127.0.0.1:8883, cert: a}", "tls.key: the file of the certificate's key is missing"},
		{"tls: {listen: 127.0.0.1:8883, cert: a, key: b}", "tls.cert: certificate a with key b cannot be used: open a: no such file or directory"},
		{"topics: [{topic: site/+/+/data, device: 2, kind: 3}]", ""},
		{"topics: [{topic: 'plant/#', device: pump-1, kind: flow}]", ""},
		{"topics: [{topic: tele/+, device: 2, format: influx}]", ""},
		{"topics: [{topic: a/b+/c, device: 2, kind: 3}]", "topics[0].topic: topic \"a/b+/c\": + must fill a level, # must be the last level"},
		{"topics: [{topic: a/#/c, device: 2, kind: x}]", "topics[0].topic: topic \"a/#/c\": + must fill a level, # must be the last level;topics[0].device: level 2 is not in 1..3 of the topic"},
		{"topics: [{topic: telemetry/+, device: 2, kind: x}]", "topics[0].topic: topic \"telemetry/+\" may not begin with \"telemetry\": telemetry, influx, senml, spBv1.0, warnings and $ have their own meaning"},
		{"topics: [{topic: a/+, device: 3, kind: a b}]", "topics[0].device: level 3 is not in 1..2 of the topic;topics[0].kind: \"a b\" is neither a level of the topic nor a name of letters, digits and ._:-"},
		{"topics: [{topic: a/+, device: 2, kind: warning}]", "topics[0].kind: kind \"warning\" is this program's own"},
		{"topics: [{topic: a/+, device: 2, kind: x, format: influx}]", "topics[0].kind: kind \"x\": in line protocol the measurement is the kind"},
		{"topics: [{topic: a/+, device: 2, kind: x, format: xml}]", "topics[0].format: format \"xml\" is not one of json, influx"},
	} {
		cfg := DefaultConfig()
		if err := yaml.Unmarshal([]byte(c.doc), &cfg); err != nil {
			t.Errorf("%s: %v", c.doc, err)
			continue
		}
		var got []string
		for _, f := range append(cfg.Validate(), cfg.Exposed()...) {
			got = append(got, f.String())
		}
		if strings.Join(got, ";") != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.doc, strings.Join(got, ";"), c.want)
		}
	}
}
