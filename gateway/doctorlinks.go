package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"haidang/drivers/link"
	"haidang/gateway/telemetry"
)

// reachTime bounds one try to reach something.
const reachTime = 3 * time.Second

// Bounds of what the doctor finds in order of a running gateway.
const (
	longLag  = 30.0  // seconds that a follower may be behind
	longWait = 120.0 // seconds that a warning may wait for its recipient
)

// instance looks at the gateway that runs on the data folder, and reports
// whether one does.
func (x *examination) instance(ctx context.Context) bool {
	running := runningGateway{data: x.cfg.Data}
	conn, err := dialSocket(ctx, x.cfg.Data)
	switch {
	case errors.Is(err, fs.ErrPermission):
		x.odd("gateway", "run the doctor as root, or as the user that haidang runs as", "its control socket belongs to another user: whether one runs cannot be told")
		return true
	case err != nil:
		x.odd("gateway", "start it: systemctl start haidang, or haidang run; if it ended by itself, journalctl -u haidang says why", "none runs on %s", x.cfg.Data)
		return false
	}
	_ = conn.Close() // it was only a question
	var h health
	if err := running.ask(ctx, http.MethodGet, "/api/v1/health", nil, nil, &h); err != nil {
		x.wrong("gateway", "restart it (systemctl restart haidang) and keep its log for those who mend it", "it holds the data folder and does not answer: %v", err)
		return true
	}
	x.judge(&h)
	return true
}

// judge tells what is wrong with a running gateway.
func (x *examination) judge(h *health) {
	up := telemetry.Duration(time.Since(h.Started).Round(time.Second))
	if h.Ready {
		x.fine("gateway", "%s is ready, version %s, up %s", h.Gateway, h.Version, up)
	}
	for _, name := range sortedNames(h.NotReady) {
		x.wrong("gateway", "its log says more: journalctl -u haidang", "%s is not ready: %s", name, h.NotReady[name])
	}
	for _, name := range sortedNames(h.Degraded) {
		x.odd("gateway", "look at the server and the line to it", "%s is away, all is kept for it meanwhile: %s", name, h.Degraded[name])
	}
	if h.Version != version {
		x.odd("version", "restart the gateway, or use its own program", "the gateway is %s, this program %s", h.Version, version)
	}
	x.judgeParts(h.Parts)
	for _, s := range h.Sources {
		if !s.Running {
			x.wrong("source "+s.Name, "look at its cable, power and address; the gateway's log names the cause", "it is down (%.0f tries)", s.Restarts)
		}
	}
	for _, f := range h.Followers {
		about := f.Name + " of the " + f.Log + " log"
		if f.Dropped > 0 {
			x.wrong(about, "give the log more room (spool.max_bytes), or find out why it was behind", "%.0f frames were gone before it had read them", f.Dropped)
		}
		if f.LagSeconds > longLag {
			x.wrong(about, "see below whether its partner can be reached; while it waits everything is kept in the log", "it is %s behind (%.0f frames)", telemetry.Duration(time.Duration(f.LagSeconds)*time.Second), f.LagFrames)
		}
	}
	for _, r := range h.Recipients {
		if r.WaitingFor > longWait {
			x.wrong("recipient "+r.Name, "see below whether it can be reached; `haidang deadletter list` has what it refused", "a warning has waited for %s (%.0f failed attempts)", telemetry.Duration(time.Duration(r.WaitingFor)*time.Second), r.Failed)
		}
	}
	for _, reason := range sortedNames(h.SetAside) {
		x.odd("set aside", "`haidang deadletter list` shows them", "%.0f for %s", h.SetAside[reason], reason)
	}
}

// judgeParts tells which parts of a shared log the machine has, and what is wrong
// with them.
func (x *examination) judgeParts(parts []partHealth) {
	var here []string
	for i := range parts {
		p := &parts[i]
		about := "part " + p.Part + " of the log"
		switch {
		case p.Fault != "":
			x.wrong(about, "it is tried again by itself; docs/cluster.md says what to do about the reason", "it cannot be worked on: %s", p.Fault)
		case p.Here:
			here = append(here, p.Part)
		case p.By == "":
			x.odd(about, "look again in a few seconds: a machine with the role takes it", "nobody has it")
		default:
			x.fine(about, "%s", p.text())
		}
	}
	if len(here) > 0 {
		x.fine("parts of the log", "this machine has %s", strings.Join(here, ", "))
	}
}

// ports looks whether those of a gateway that is to start are free.
func (x *examination) ports() {
	for _, p := range x.cfg.listeners() {
		listener, err := net.Listen("tcp", p.address)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			_, port, _ := net.SplitHostPort(p.address)
			x.wrong("port of "+p.key, "stop the other program, or choose another port", "%s is taken (ss -ltnp 'sport = :%s' tells by whom)", p.address, port)
		case errors.Is(err, syscall.EACCES):
			x.wrong("port of "+p.key, "choose a port from 1024", "%s is for root only", p.address)
		case err != nil:
			x.wrong("port of "+p.key, "name an address that this machine has (ip addr)", "%v", err)
		default:
			listener.Close()
			x.fine("port of "+p.key, "%s is free", p.address)
		}
	}
}

// lines looks whether what sources connect to is there.
func (x *examination) lines(ctx context.Context) {
	for _, c := range x.cfg.Modbus {
		x.line(ctx, "modbus "+c.Name, c.Connect)
	}
	for _, c := range x.cfg.Serial {
		x.line(ctx, "serial "+c.Name, c.Connect)
	}
	for _, c := range x.cfg.AIS {
		x.line(ctx, "ais "+c.Name, c.Connect)
	}
	for _, c := range x.cfg.IOC {
		if c.SMS != nil && !strings.HasPrefix(c.SMS.Connect, "tcp:") {
			x.line(ctx, "recipient "+c.Name, c.SMS.Connect)
		}
	}
}

func (x *examination) line(ctx context.Context, about, connect string) {
	connect = strings.TrimPrefix(connect, "rtu+")
	if rest, ok := strings.CutPrefix(connect, "tcp://"); ok && !strings.Contains(rest, ":") {
		connect += ":502"
	}
	target, err := link.Parse(connect)
	if err != nil {
		return // the configuration's own faults are told
	}
	switch target.Scheme {
	case link.TCP:
		x.reach(ctx, about, target.Address, "look at its power, cable and address (ping it)")
	case link.Serial, link.File:
		x.device(about, target.Address)
	}
}

// device looks at a serial device or a file.
func (x *examination) device(about, path string) {
	if _, err := os.Stat(path); err != nil {
		x.wrong(about, "plug the adapter in; ls -l /dev/serial/by-id names those that are", "%s is not there", path)
		return
	}
	if err := unix.Access(path, unix.R_OK); err != nil { // of who runs the doctor: for root everything is
		x.wrong(about, "let the user haidang into the group that the device belongs to: usermod -aG dialout haidang", "%s may not be opened: %v", path, err)
		return
	}
	x.fine(about, "%s is there", path)
}

// partners looks whether those can be reached to whom readings and warnings go.
func (x *examination) partners(ctx context.Context) {
	if u := x.cfg.Influx.URL; u != "" && x.reachURL(ctx, "influx", u, "everything is kept in the log until it returns; look at the server and the line to it") {
		x.admitted(ctx)
	}
	for _, c := range x.cfg.Bridges {
		x.reachURL(ctx, "bridge "+c.Name, c.Connect, "what is forwarded waits until it returns; look at the server and the line to it")
	}
	for _, c := range x.cfg.IOC {
		if address := c.Address(); address != "" {
			x.reach(ctx, "recipient "+c.Name, address, "warnings wait until it returns; look at the server and the line to it, and tell who acts by telephone")
		}
	}
}

// admitted asks the InfluxDB elsewhere whether it takes what we write, by writing
// nothing.
func (x *examination) admitted(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	c := x.cfg.Influx
	target := strings.TrimRight(c.URL, "/") + "/api/v2/write?" + url.Values{"org": {c.Org}, "bucket": {c.Bucket}, "precision": {"ns"}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, http.NoBody)
	if err != nil {
		return // the configuration's own faults are told
	}
	request.Header.Set("Authorization", "Token "+c.Token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		x.wrong("influx", "is this an InfluxDB, and is its certificate right?", "%s does not answer: %v", c.URL, reason(err))
		return
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden:
		x.wrong("influx", "put a token that may write bucket "+c.Bucket+" into influx.token; everything is kept in the log meanwhile", "it refuses the token: %s", response.Status)
	case response.StatusCode == http.StatusNotFound:
		x.wrong("influx", "make the bucket, or mend influx.org and influx.bucket", "it has no bucket %q in organisation %q: %s", c.Bucket, c.Org, response.Status)
	case response.StatusCode >= http.StatusInternalServerError:
		x.wrong("influx", "its own log says more", "it is not well: %s", response.Status)
	default: // 204, and 400 of those that want a line
		x.fine("influx", "it takes the token")
	}
}

func (x *examination) reachURL(ctx context.Context, about, address, do string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false // the configuration's own faults are told
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "ws": "80", "https": "443", "wss": "443", "mqtt": "1883", "tcp": "1883", "mqtts": "8883", "ssl": "8883", "tls": "8883"}[u.Scheme]
	}
	return x.reach(ctx, about, net.JoinHostPort(u.Hostname(), port), do)
}

func (x *examination) reach(ctx context.Context, about, address, do string) bool {
	dialer := net.Dialer{Timeout: reachTime}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		x.wrong(about, do, "%s cannot be reached: %v", address, reason(err))
		return false
	}
	_ = conn.Close() // it was only a question
	x.fine(about, "%s can be reached", address)
	return true
}

// reason is the cause at the end of an error of the network.
func reason(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		if op.Timeout() {
			return fmt.Errorf("no answer within %s", reachTime)
		}
		return op.Err
	}
	return err
}
