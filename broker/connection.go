package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"haidang/gateway/telemetry"
)

// longPast is a deadline that has passed.
var longPast = time.Unix(1, 0)

// A connection is a client's socket with all that belongs to it and not to
// the client's session. mochi sees it as the net.Conn of the client.
type connection struct {
	net.Conn
	broker *Broker
	open   context.Context // ends when the connection is closed
	end    context.CancelFunc
	once   sync.Once
	client *mqtt.Client // from OnConnect on

	// Of the goroutine that reads:
	packetID uint16 // of the inbound packet at hand; mochi sees 0, see hooks
	qos      byte   // of the inbound publish at hand
	released bool   // the PUBREL at hand ends an exchange that is known
	reserved string // the topic of the publish at hand when it is the server's own, see reserve
	topic    string // the last topic and its route
	last     *route
	routes   map[string]*route
	routing  uint64                  // of the mappings that they were found with
	devices  map[string]struct{}     // whose link this connection carries
	session  atomic.Pointer[session] // from CONNACK on
	asking   bool                    // SUBSCRIBE is being answered
	verdicts []packets.Code          // of the filters of the SUBSCRIBE at hand
	existed  []bool                  // which of them there were before
	granted  packets.Subscriptions   // whose retained messages are to be sent
	will     packets.Properties      // of the will; mochi keeps some of them

	turn     *sync.Mutex // that is held, see turns
	since    time.Time
	admitted atomic.Bool        // the client has said who it is
	account  *telemetry.Account // from CONNECT on
	counted  bool               // among the connections of the account
	pace     *pace              // of the account
	in       inbox
	frames   framer
	parted   atomic.Bool // a DISCONNECT was sent, or another reason to send none

	window int // messages that the client takes at a time, unacknowledged

	// Of the way to the client, see awaitTurn:
	deaf  atomic.Bool   // was waited for in vain
	eased chan struct{} // holds a token when a message was written or acknowledged

	acks    acks
	pending int // messages that may be unacknowledged, up to maxPending
	out     outbox
}

func (b *Broker) newConnection(conn net.Conn) *connection {
	c := &connection{Conn: conn, broker: b, since: time.Now(), routes: map[string]*route{}, devices: map[string]struct{}{}}
	c.open, c.end = context.WithCancel(context.Background())
	c.acks.room = make(chan struct{}, 1)
	c.eased = make(chan struct{}, 1)
	return c
}

// connectionOf returns nil for the broker's own clients.
func connectionOf(cl *mqtt.Client) *connection {
	c, _ := cl.Net.Conn.(*connection)
	return c
}

// SetDeadline is what mochi calls for the keep alive; writes have their own.
func (c *connection) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// version5 reports whether the client speaks MQTT 5.
func (c *connection) version5() bool { return c.client.Properties.ProtocolVersion == 5 }

// drop ends the connection, telling an MQTT 5 client why.
func (c *connection) drop(code packets.Code) {
	if c.client == nil {
		_ = c.Close()
		return
	}
	if c.version5() {
		_ = c.broker.server.DisconnectClient(c.client, code)
		return
	}
	c.client.Stop(code)
}

// route returns what the topic is, remembering up to maxRoutes of them.
func (c *connection) route(topic string) *route {
	c.checkRoutes()
	if c.last != nil && c.topic == topic {
		return c.last
	}
	r := c.routes[topic]
	if r == nil {
		topic = strings.Clone(topic) // a view of its packet
		r = c.broker.route(topic)
		r.topic = topic
		r.counts = c.broker.metrics.families[r.family]
		r.deep = c.broker.deep(topic)
		r.denied = !c.account.MayPublish(topic) || r.device != "" && !c.account.Speaks(r.device)
		r.quick = r.format != "" && r.fault == nil && !r.own && !r.deep && !r.denied
		if len(c.routes) < maxRoutes {
			c.routes[topic] = r
		}
	}
	c.topic, c.last = r.topic, r
	return r
}

// checkRoutes forgets routes that were found with other mappings.
func (c *connection) checkRoutes() {
	if now := c.broker.routing.Load(); c.routing != now {
		c.routing, c.topic, c.last = now, "", nil
		clear(c.routes)
	}
}

// heard reports whether somebody subscribes to the topic of the route.
func (c *connection) heard(r *route, topic string) bool {
	if now := c.broker.subscriptions.Load(); r.asked != now {
		r.asked, r.heard = now, !c.broker.audience(topic).empty()
	}
	return r.heard
}

// isRefusal reports whether a reason is one of a CONNECT that is understood and not
// accepted.
func isRefusal(code packets.Code) bool {
	switch code.Code {
	case packets.ErrNotAuthorized.Code, packets.ErrBadUsernameOrPassword.Code, packets.ErrServerBusy.Code, packets.ErrQuotaExceeded.Code,
		packets.ErrConnectionRateExceeded.Code, packets.ErrBadAuthenticationMethod.Code:
		return true
	}
	return false
}

// endReason tells in one word and in a sentence why a connection ended.
func (c *connection) endReason(err error) (string, error) {
	if c.client != nil {
		switch cause := c.client.StopCause(); {
		case errors.Is(cause, packets.ErrSessionTakenOver):
			return "taken_over", errors.New("the client connected again")
		case errors.Is(cause, packets.ErrQuotaExceeded):
			return "refused", errors.New("the log refuses readings")
		case errors.Is(cause, packets.ErrNotAuthorized):
			return "not_authorized", errors.New("the client published where it may not")
		case errors.Is(cause, packets.ErrAdministrativeAction):
			return "revoked", errors.New("the account was removed or changed")
		case errors.Is(cause, packets.ErrMessageRateTooHigh):
			return "rate", errors.New("the client published faster than it may")
		}
	}
	code := packets.Code{}
	if c.client != nil && errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(c.client.StopCause(), os.ErrDeadlineExceeded) {
		err = net.ErrClosed // by us
	}
	switch {
	case err == nil:
		return "client", errors.New("the client disconnected")
	case errors.Is(err, packets.ErrPacketTooLarge):
		return "packet_too_large", errors.New("a packet of more than it may send")
	case errors.Is(err, os.ErrDeadlineExceeded) && c.client == nil:
		return "no_connect", errors.New("no CONNECT in time")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "keepalive", errors.New("nothing was heard for one and a half times the keep alive")
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrUnexpectedEOF):
		return "lost", errors.New("the connection was lost")
	case errors.As(err, &code) && !c.admitted.Load() && isRefusal(code):
		return "not_let_in", code
	case errors.As(err, &code):
		return "protocol", code
	}
	return "lost", err
}
