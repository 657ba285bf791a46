package link

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Scheme is how a line of bytes is reached.
type Scheme string

// The schemes.
const (
	TCP    Scheme = "tcp"    // we connect
	Listen Scheme = "listen" // others connect to us over TCP
	UDP    Scheme = "udp"    // others send us datagrams
	File   Scheme = "file"   // a file, read once
	Serial Scheme = "serial" // a serial line
)

// loopback is where listeners listen when the configuration names no host:
// lines carry no accounts, so nobody else is let in unasked.
const loopback = "127.0.0.1"

// want lists the accepted forms for error messages.
const want = "want tcp://host:port, listen://host:port, udp://host:port, serial:///dev/name or file:///path"

// A Target names a line of bytes.
type Target struct {
	Scheme  Scheme
	Address string // host:port; of a file or a serial device its path
	Serial  SerialLine
}

// String writes the form that Parse reads.
func (t Target) String() string {
	s := string(t.Scheme) + "://" + t.Address
	if t.Scheme == Serial {
		s += "?" + t.Serial.query()
	}
	return s
}

// Parse reads a target from its URL form. A listener without a host listens
// on 127.0.0.1; port 0 lets the system choose one.
func Parse(connect string) (Target, error) {
	scheme, rest, ok := strings.Cut(connect, "://")
	if !ok {
		return Target{}, fmt.Errorf("connect %q is not a URL: %s", connect, want)
	}
	switch s := Scheme(strings.ToLower(scheme)); s {
	case TCP, Listen, UDP:
		return parseAddress(s, connect, rest)
	case File:
		return parsePath(connect)
	case Serial:
		return parseSerial(connect)
	}
	return Target{}, fmt.Errorf("connect %q has the unknown scheme %q: %s", connect, scheme, want)
}

func parseAddress(scheme Scheme, connect, rest string) (Target, error) {
	host, port, err := net.SplitHostPort(strings.TrimSuffix(rest, "/"))
	if err != nil {
		return Target{}, fmt.Errorf("connect %q has no host:port: %s", connect, want)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 && scheme == TCP {
		return Target{}, fmt.Errorf("connect %q: port %q is not in 1..65535", connect, port)
	}
	if host == "" {
		if scheme == TCP {
			return Target{}, fmt.Errorf("connect %q names no host to connect to", connect)
		}
		host = loopback
	}
	return Target{Scheme: scheme, Address: net.JoinHostPort(host, port)}, nil
}

func parsePath(connect string) (Target, error) {
	u, err := url.Parse(connect)
	if err != nil {
		return Target{}, fmt.Errorf("connect %q is not a file URL: %w", connect, err)
	}
	// file://name is a common slip for a relative path: the URL's host is
	// taken as its first part.
	path := u.Host + u.Path
	if path == "" || u.RawQuery != "" || u.Fragment != "" {
		return Target{}, fmt.Errorf("connect %q names no file: want file:///path", connect)
	}
	return Target{Scheme: File, Address: path}, nil
}
