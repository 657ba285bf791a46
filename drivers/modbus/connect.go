package modbus

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"haidang/drivers/link"
)

// wantConnect lists the accepted forms for error messages.
const wantConnect = "tcp://host:502, rtu+tcp://host:port, serial:///dev/ttyUSB0?baud=9600 or listen://:9502"

// An endpoint is where a line is and how frames are wrapped there.
type endpoint struct {
	target link.Target
	rtu    bool // RTU frames with a CRC; else Modbus TCP with MBAP headers
}

func (e *endpoint) serial() bool  { return e.target.Scheme == link.Serial }
func (e *endpoint) listens() bool { return e.target.Scheme == link.Listen }

// String writes the form that parseEndpoint reads.
func (e *endpoint) String() string {
	if e.rtu && e.target.Scheme == link.TCP {
		return "rtu+" + e.target.String()
	}
	return e.target.String()
}

// parseEndpoint reads a connect string.
func parseEndpoint(connect string) (endpoint, error) {
	scheme, _, _ := strings.Cut(connect, "://")
	switch strings.ToLower(scheme) {
	case "tcp":
		return tcpEndpoint(connect, DefaultPort)
	case "rtu+tcp":
		e, err := tcpEndpoint(connect, "")
		e.rtu = true
		return e, err
	case "serial":
		target, err := link.Parse(connect)
		return endpoint{target: target, rtu: true}, err
	case "listen":
		// Modems come from outside: without a host, listen on every address.
		if rest, ok := strings.CutPrefix(connect, "listen://:"); ok {
			connect = "listen://0.0.0.0:" + rest
		}
		target, err := link.Parse(connect)
		return endpoint{target: target, rtu: true}, err
	}
	return endpoint{}, fmt.Errorf("connect %q is not like %s", connect, wantConnect)
}

// tcpEndpoint reads scheme://host:port; without a port it is the given one.
func tcpEndpoint(connect, port string) (endpoint, error) {
	u, err := url.Parse(connect)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return endpoint{}, fmt.Errorf("connect %q is not like %s", connect, wantConnect)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if port == "" {
		return endpoint{}, fmt.Errorf("connect %q names no port, as in rtu+tcp://host:8899", connect)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return endpoint{}, fmt.Errorf("connect %q: port %s is not in 1..65535", connect, port)
	}
	return endpoint{target: link.Target{Scheme: link.TCP, Address: net.JoinHostPort(u.Hostname(), port)}}, nil
}
