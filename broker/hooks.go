package broker

import (
	"fmt"
	"math"
	"runtime/debug"
	"strings"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hooks is where mochi asks the broker.
//
// mochi keeps inbound and outbound packet ids in one map, so a client that
// publishes with id 1 destroys the delivery to it that has id 1. Therefore
// inbound ids never reach mochi: OnPacketRead keeps the id of the packet at
// hand in the connection and sets it to 0, which no delivery has, and
// OnPacketEncode puts it into the answer. A publish reaches mochi with QoS 0,
// because QoS 1 and 2 need an id; the connection knows the real one.
type hooks struct {
	mqtt.HookBase
	*Broker
}

// ID is the name of the hook.
func (h *hooks) ID() string { return "haidang" }

// Provides tells mochi which methods to call.
func (h *hooks) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished,
		mqtt.OnDisconnect, mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnPublish, mqtt.OnPublished, mqtt.OnPublishDropped,
		mqtt.OnSubscribed, mqtt.OnUnsubscribed, mqtt.OnPacketIDExhausted, mqtt.OnWill, mqtt.OnWillSent, mqtt.OnClientExpired,
		mqtt.OnRetainedExpired:
		return true
	}
	return false
}

// guard keeps a panic on one of mochi's own goroutines from ending the
// process. Those of a client's reader are caught where it is served.
func (h *hooks) guard(cl *mqtt.Client, act string) {
	if p := recover(); p != nil {
		h.panicked(cl, act, p)
	}
}

func (b *Broker) panicked(cl *mqtt.Client, act string, p any) {
	b.metrics.panics.Inc()
	id := ""
	if cl != nil {
		id = cl.ID
		cl.Stop(packets.ErrUnspecifiedError)
	}
	b.logger.Error("panic while serving an MQTT client", "act", act, "client", id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// OnConnectAuthenticate lets everybody in: the listeners are on loopback.
func (h *hooks) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

// OnACLCheck allows everything; OnPublish refuses what only this program may
// publish, because here the QoS that the answer needs is not known.
func (h *hooks) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

// OnConnect refuses a will where clients may not publish, and clients that
// would make too many sessions.
func (h *hooks) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	c := connectionOf(cl)
	c.client = cl
	if will := &cl.Properties.Will; will.Flag != 0 {
		level, _, _ := strings.Cut(will.TopicName, "/")
		if level == warningsLevel || will.TopicName == "" || !mqtt.IsValidFilter(will.TopicName, true) {
			return h.refuseConnect(cl, packets.ErrTopicNameInvalid)
		}
	}
	if _, known := h.server.Clients.Get(cl.ID); !known && h.server.Clients.Len() >= 2*h.cfg.MaxClients {
		return h.refuseConnect(cl, packets.ErrServerBusy)
	}
	if n := cl.Properties.Props.ReceiveMaximum; n > 0 && n < maxInflight {
		c.window = make(chan struct{}, n)
	}
	return nil
}

func (h *hooks) refuseConnect(cl *mqtt.Client, code packets.Code) error {
	answer := code
	if cl.Properties.ProtocolVersion < 5 {
		answer = packets.ErrServerUnavailable
	}
	if err := h.server.SendConnack(cl, answer, false, nil); err != nil {
		return fmt.Errorf("answer CONNECT of %q: %w", cl.ID, err)
	}
	return code
}

// OnSessionEstablish takes two things out of mochi's hands. Its flow control
// locks up (Inflight.NextImmediate takes a read lock twice, with a writer
// between them for ever) and loses places: the connection's window stands in.
// Its topic aliases outlive messages that were dropped: none are used.
func (h *hooks) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) {
	cl.Properties.Props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)
	cl.Properties.Props.TopicAliasMaximum = 0
}

// OnSessionEstablished is called when CONNACK and what was pending for the
// session were sent.
func (h *hooks) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	h.subscriptions.Add(1)
	close(connectionOf(cl).established)
}

// OnDisconnect forgets a session that ends with its connection.
func (h *hooks) OnDisconnect(cl *mqtt.Client, _ error, expire bool) {
	h.subscriptions.Add(1)
	c := connectionOf(cl)
	if c == nil {
		return
	}
	cl.State.Inflight.Delete(0) // of an exchange that was cut off
	if expire {
		h.sessions.end(cl.ID, c.session)
	}
}

// OnClientExpired removes the subscriptions of a session that nobody came back
// to; mochi leaves them.
func (h *hooks) OnClientExpired(cl *mqtt.Client) {
	defer h.guard(cl, "expire session")
	if c := connectionOf(cl); c != nil {
		h.sessions.end(cl.ID, c.session)
	}
	cl.ClearInflights()
	h.server.UnsubscribeClient(cl)
	h.subscriptions.Add(1)
}

// OnPacketRead takes the packet id away, see hooks.
func (h *hooks) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connectionOf(cl)
	if c == nil {
		return pk, nil
	}
	switch pk.FixedHeader.Type {
	case packets.Publish:
		c.qos, c.packetID = pk.FixedHeader.Qos, pk.PacketID
		if c.qos > 0 && c.packetID > 0 { // else mochi answers the violation
			pk.FixedHeader.Qos, pk.PacketID = 0, 0
		}
		c.reserve(&pk)
	case packets.Subscribe, packets.Unsubscribe:
		if c.packetID = pk.PacketID; c.packetID > 0 {
			pk.FixedHeader.Qos, pk.PacketID = 0, 0
		}
	case packets.Pubrel:
		c.packetID, c.released = pk.PacketID, c.session != nil && c.session.release(pk.PacketID)
		pk.PacketID = 0
	case packets.Puback, packets.Pubcomp:
		c.windowOpens()
	case packets.Pubrec:
		if pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
			c.windowOpens()
		}
	}
	return pk, nil
}

// reserve gives a publish on a topic that is the MQTT server's own ($SYS/...)
// the topic of those that OnPublish refuses: mochi passes over such a publish in
// silence, and a client of MQTT 3.1.1 would send it for ever. Wildcards are left
// for mochi, which ends the connection [MQTT-3.3.2-2].
func (c *connection) reserve(pk *packets.Packet) {
	c.reserved = ""
	if strings.HasPrefix(pk.TopicName, "$") && !strings.ContainsAny(pk.TopicName, "+#") && !mqtt.IsValidFilter(pk.TopicName, true) {
		c.reserved, pk.TopicName = pk.TopicName, warningsLevel
	}
}

// windowOpens notes that the client can take one message more.
func (c *connection) windowOpens() {
	select {
	case <-c.window:
	default:
	}
}

// windowTakes waits until the client can take one message more. What a session
// had pending is sent again by the goroutine that reads, which must not wait.
func (c *connection) windowTakes() {
	if c.window == nil {
		return
	}
	select {
	case c.window <- struct{}{}:
		return
	default:
	}
	select {
	case <-c.established:
	default:
		return
	}
	select {
	case c.window <- struct{}{}:
	case <-c.open.Done():
	}
}

// OnPacketEncode puts the packet id back, see hooks.
func (h *hooks) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	defer h.guard(cl, "encode packet")
	c := connectionOf(cl)
	if c == nil {
		return pk
	}
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if pk.FixedHeader.Qos > 0 {
			c.windowTakes()
		}
	case packets.Connack:
		if pk.ReasonCode == packets.CodeSuccess.Code {
			c.session = h.sessions.start(cl.ID, pk.SessionPresent)
			cl.State.Inflight.Delete(0) // of the connection that was taken over
			// mochi takes deliveries of QoS 2 off the room for inbound messages,
			// and ends the connection when there is none; expect has its own bound.
			cl.State.Inflight.ResetReceiveQuota(math.MaxInt32)
		}
	case packets.Puback, packets.Pubrec, packets.Suback, packets.Unsuback:
		if pk.PacketID == 0 {
			pk.PacketID = c.packetID
		}
	case packets.Pubcomp:
		if pk.PacketID == 0 {
			pk.PacketID = c.packetID
			if c.released {
				pk.ReasonCode, pk.Properties.ReasonString = packets.CodeSuccess.Code, ""
			}
		}
	}
	return pk
}

// OnPublish takes telemetry in.
func (h *hooks) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connectionOf(cl)
	if c == nil {
		return pk, nil // our own
	}
	r := c.route(pk.TopicName)
	if r.format == "" {
		return h.publishOrdinary(c, r, pk)
	}
	return h.publishTelemetry(c, r, pk)
}

// OnPublished ends what mochi keeps of a QoS 2 exchange; the session has it.
func (h *hooks) OnPublished(cl *mqtt.Client, pk packets.Packet) {
	if cl.Net.Inline || pk.FixedHeader.Qos != 2 {
		return
	}
	if cl.State.Inflight.Delete(0) {
		atomic.AddInt64(&h.server.Info.Inflight, -1)
	}
	cl.State.Inflight.IncreaseReceiveQuota()
}

// OnPublishDropped counts what a full queue of a subscriber costs.
func (h *hooks) OnPublishDropped(*mqtt.Client, packets.Packet) {
	h.metrics.drops.WithLabelValues(dropSlowClient).Inc()
}

// OnPacketIDExhausted counts what a subscriber that never acknowledges costs.
func (h *hooks) OnPacketIDExhausted(*mqtt.Client, packets.Packet) {
	h.metrics.drops.WithLabelValues(dropPacketIDs).Inc()
}

// OnSubscribed makes connections ask again whether they are heard.
func (h *hooks) OnSubscribed(*mqtt.Client, packets.Packet, []byte) { h.subscriptions.Add(1) }

// OnUnsubscribed makes connections ask again whether they are heard.
func (h *hooks) OnUnsubscribed(*mqtt.Client, packets.Packet) { h.subscriptions.Add(1) }

// OnWill prepares a will that is about to be sent: telemetry is not retained,
// and a delayed will is sent before the session ends [MQTT-3.1.3-9], because
// mochi then forgets the client and does not call OnWillSent.
func (h *hooks) OnWill(cl *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	p := &cl.Properties
	p.Will.WillDelayInterval = min(p.Will.WillDelayInterval, p.Props.SessionExpiryInterval-min(p.Props.SessionExpiryInterval, 2))
	if newRoute(will.TopicName, h.cfg.Topics).format != "" {
		will.Retain = false
	} else if will.Retain && !h.retained.keep(will.TopicName, len(will.Payload)) {
		will.Retain = false
		h.metrics.drops.WithLabelValues(dropRetain).Inc()
	}
	return will, nil
}

// OnWillSent takes a will on a telemetry topic in.
func (h *hooks) OnWillSent(cl *mqtt.Client, pk packets.Packet) {
	defer h.guard(cl, "send will")
	h.takeWill(cl, pk)
}

// OnRetainedExpired gives back the room of a retained message.
func (h *hooks) OnRetainedExpired(topic string) { h.retained.keep(topic, 0) }
