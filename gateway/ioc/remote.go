package ioc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"haidang/gateway/telemetry"
)

// DefaultTopic is where another broker gets a warning.
const DefaultTopic = "warnings/{device}/{rule}"

// MQTTConfig is another MQTT broker that gets the warnings, as the gateway's own
// has them: JSON, QoS 1, retained while the warning lasts.
type MQTTConfig struct {
	URL      string `yaml:"url"`      // mqtt://host:1883, mqtts://host:8883, ws:// or wss://
	User     string `yaml:"user"`     // at that broker
	Password string `yaml:"password"` // of the user; rather as ${NAME} than here
	Access   `yaml:",inline"`
	ClientID string             `yaml:"client_id"` // default haidang-, the gateway and the recipient's name
	Topic    string             `yaml:"topic"`     // {device}, {rule}, {kind}, {site}, {severity} stand for the warning's; default DefaultTopic
	Timeout  telemetry.Duration `yaml:"timeout"`   // of one warning, 1s to 1m; default DefaultTimeout
}

// Validate reports what is wrong.
func (c MQTTConfig) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Hostname() == "" || !strings.Contains(" mqtt mqtts ws wss ", " "+u.Scheme+" "):
		fault("url", "expected mqtt://host:1883, mqtts://host:8883, ws://host/path or wss://host/path")
	case u.User != nil:
		fault("url", "the url has a user in it; expected user and password as keys of their own")
	case (c.CA != "" || c.Cert != "") && (u.Scheme == "mqtt" || u.Scheme == "ws"):
		fault("url", "ca and cert are for mqtts:// and wss://")
	}
	if c.User == "" && c.Password != "" {
		fault("user", "there is a password and no user")
	}
	if c.Token != "" {
		fault("token", "token is for HTTP; expected user and password")
	}
	if t := topicOf(c.Topic, &telemetry.Warning{}); strings.ContainsAny(t, "+#{}\x00") || strings.HasPrefix(t, "$") || len(c.Topic) > 1024 {
		fault("topic", "topic %q has +, #, an unknown name in braces, begins with $, or is too long", c.Topic)
	}
	faults = append(faults, c.Access.Validate()...)
	return append(faults, validTimeout(c.Timeout)...)
}

// topicOf fills the warning's names in; a / within one becomes a -.
func topicOf(topic string, w *telemetry.Warning) string {
	name := strings.NewReplacer("/", "-", "+", "-", "#", "-").Replace
	return strings.NewReplacer("{device}", name(w.Device), "{rule}", name(w.Rule), "{kind}", name(w.Kind), "{site}", name(w.Site),
		"{severity}", w.Severity.String()).Replace(topic)
}

// Remote publishes warnings to another broker. It is safe for concurrent use.
type Remote struct {
	cfg     MQTTConfig
	client  string
	timeout time.Duration
	retainer

	connecting sync.Mutex
	conn       paho.Client   // nil: not connected
	lost       chan struct{} // closed when the broker ends conn: what waits on it gets no answer
}

// NewRemote makes a recipient of a valid configuration. client is the client id
// where the configuration has none.
func NewRemote(c MQTTConfig, client string) *Remote {
	r := &Remote{cfg: c, client: c.ClientID, timeout: c.Timeout.Std(), retainer: retainer{holders: map[string]holder{}}}
	if r.client == "" {
		r.client = client
	}
	if r.cfg.Topic == "" {
		r.cfg.Topic = DefaultTopic
	}
	if r.timeout == 0 {
		r.timeout = DefaultTimeout
	}
	return r
}

// Deliver makes one attempt to publish the warning: nil means that the broker
// has acknowledged it.
func (r *Remote) Deliver(ctx context.Context, w telemetry.Warning) error {
	payload, err := json.Marshal(&w)
	if err != nil {
		return &Failure{Reason: reasonEncode, OneWarning: true, Final: true, Detail: fmt.Sprintf("write the warning as JSON: %v", err)}
	}
	attempt, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	client, lost, err := r.connected(attempt)
	if err == nil {
		err = r.publish(&w, topicOf(r.cfg.Topic, &w), payload, func(topic string, payload []byte, retain bool) error {
			return wait(attempt, client.Publish(topic, qosWarning, retain, payload), lost)
		})
		if err != nil {
			r.drop(client)
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return r.failure(attempt, err)
}

func (r *Remote) failure(attempt context.Context, err error) error {
	f := &Failure{Reason: transportReason(err), Detail: fmt.Sprintf("publish to %s: %v", r.cfg.URL, err)}
	switch {
	case attempt.Err() != nil:
		f.Reason = reasonTimeout
		f.Detail = fmt.Sprintf("publish to %s: not acknowledged within %s", r.cfg.URL, r.timeout)
	case errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword), errors.Is(err, packets.ErrorRefusedNotAuthorised):
		f.Reason = reasonLogin
	}
	return f
}

// connected returns a client with a connection, or makes one.
func (r *Remote) connected(ctx context.Context) (client paho.Client, lost <-chan struct{}, err error) {
	r.connecting.Lock()
	defer r.connecting.Unlock()
	if r.conn != nil && r.conn.IsConnectionOpen() {
		return r.conn, r.lost, nil
	}
	u, err := url.Parse(r.cfg.URL)
	if err != nil {
		return nil, nil, errors.New("the url cannot be read")
	}
	secure, err := r.cfg.tls(u.Hostname())
	if err != nil {
		return nil, nil, &Failure{Reason: reasonTLS, Detail: err.Error()}
	}
	o := paho.NewClientOptions().AddBroker(broker(u)).SetClientID(r.client).SetUsername(r.cfg.User).SetPassword(r.cfg.Password).
		SetTLSConfig(secure).SetConnectTimeout(r.timeout).SetWriteTimeout(r.timeout).SetCleanSession(true).
		// The sender tries again: nothing is kept here that the log has.
		SetAutoReconnect(false).SetConnectRetry(false).SetKeepAlive(30 * time.Second)
	ended := make(chan struct{})
	o.SetConnectionLostHandler(func(paho.Client, error) { close(ended) })
	client = paho.NewClient(o)
	if err := wait(ctx, client.Connect(), nil); err != nil {
		client.Disconnect(0)
		return nil, nil, err
	}
	r.conn, r.lost = client, ended
	return client, ended, nil
}

// broker writes an address as the client library wants it, with its port.
func broker(u *url.URL) string {
	scheme, port := u.Scheme, u.Port()
	switch scheme {
	case "mqtt":
		scheme = "tcp"
		if port == "" {
			port = "1883"
		}
	case "mqtts":
		scheme = "ssl"
		if port == "" {
			port = "8883"
		}
	}
	host := u.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" {
		host += ":" + port
	}
	return scheme + "://" + host + u.Path
}

// drop ends a connection on which something failed.
func (r *Remote) drop(client paho.Client) {
	r.connecting.Lock()
	defer r.connecting.Unlock()
	client.Disconnect(0)
	if r.conn == client {
		r.conn = nil
	}
}

// Close ends the connection.
func (r *Remote) Close() {
	r.connecting.Lock()
	defer r.connecting.Unlock()
	if r.conn != nil {
		r.conn.Disconnect(100)
		r.conn = nil
	}
}

func wait(ctx context.Context, token paho.Token, lost <-chan struct{}) error {
	select {
	case <-token.Done():
		return token.Error()
	case <-lost:
		return fmt.Errorf("the broker ended the connection: %w", io.EOF)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
