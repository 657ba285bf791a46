package ais

import (
	"strings"
	"testing"
)

// TestCircles: receivers that forward to each other are told at load.
func TestCircles(t *testing.T) {
	receiver := func(name, connect string, to ...string) Config {
		return Config{Name: name, Connect: connect, Forward: to}
	}
	for name, c := range map[string]struct {
		all  []Config
		want string // beginnings of the faults
	}{
		"two":                     {[]Config{receiver("a", "udp://127.0.0.1:7001", "udp://127.0.0.1:7002"), receiver("b", "udp://0.0.0.0:7002", "udp://localhost:7001")}, "[0].forward[0] [1].forward[0]"},
		"three":                   {[]Config{receiver("a", "udp://:7001", "udp://127.0.0.1:7002"), receiver("b", "udp://:7002", "udp://127.0.0.1:7003"), receiver("c", "udp://:7003", "udp://10.0.0.1:9", "udp://127.0.0.1:7001")}, "[0].forward[0] [1].forward[0] [2].forward[1]"},
		"line":                    {[]Config{receiver("a", "udp://:7001", "udp://127.0.0.1:7002"), receiver("b", "udp://:7002", "udp://127.0.0.1:7003"), receiver("c", "udp://:7003")}, ""},
		"into a circle":           {[]Config{receiver("a", "udp://:7001", "udp://127.0.0.1:7002"), receiver("b", "udp://:7002", "udp://127.0.0.1:7003"), receiver("c", "udp://:7003", "udp://127.0.0.1:7002")}, "[1].forward[0] [2].forward[0]"},
		"TCP and UDP of one port": {[]Config{receiver("a", "listen://127.0.0.1:7001", "udp://127.0.0.1:7002"), receiver("b", "udp://:7002", "udp://127.0.0.1:7001")}, ""},
	} {
		var got []string
		for _, f := range ValidateAll(c.all) {
			got = append(got, f.Path)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: faults at %v, want %s", name, got, c.want)
		}
	}
}
