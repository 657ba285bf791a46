package broker

import (
	"cmp"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
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
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnSubscribe, mqtt.OnACLCheck, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished,
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

// OnConnectAuthenticate lets everybody in: OnConnect has asked already.
func (h *hooks) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

// OnACLCheck allows everything: OnPublish refuses what a client may not publish,
// because here the QoS that the answer needs is not known, and OnSubscribe what
// it may not read.
func (h *hooks) OnACLCheck(cl *mqtt.Client, _ string, write bool) bool {
	if c := connectionOf(cl); c != nil && !write && !cl.Closed() {
		c.awaitTurn() // a message for the client comes next
	}
	return true
}

// OnConnect asks who the client is, and what it may have.
func (h *hooks) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	c := connectionOf(cl)
	c.client = cl
	switch {
	case pk.Connect.PasswordFlag && !pk.Connect.UsernameFlag && cl.Properties.ProtocolVersion < 5:
		return packets.ErrProtocolViolationFlagNoUsername // [MQTT-3.1.2-22] of MQTT 3.1.1
	case pk.Properties.AuthenticationMethod != "":
		return h.refuseConnect(cl, packets.ErrBadAuthenticationMethod) // 4.12: there is none
	}
	if err := h.greet(c, cl, pk); err != nil {
		return err
	}
	own := c.account.Limits.Inflight
	c.pending = maxPending
	if own > 0 {
		c.pending = min(own, maxPending)
	}
	window := int(cl.Properties.Props.ReceiveMaximum)
	if own > 0 && (window == 0 || own < window) {
		window = own
	}
	if window > 0 && window < h.cfg.Limits.Inflight {
		c.window = make(chan struct{}, window)
	}
	return nil
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
	s := c.session.Load()
	if s != nil && s.revoked.Load() {
		h.leave(c)
	}
	if expire {
		h.sessions.end(cl.ID, s)
	}
}

// OnClientExpired removes the subscriptions of a session that nobody came back
// to; mochi leaves them.
func (h *hooks) OnClientExpired(cl *mqtt.Client) {
	defer h.guard(cl, "expire session")
	if c := connectionOf(cl); c != nil {
		h.sessions.end(cl.ID, c.session.Load())
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
		if c.tooLarge(&pk) {
			h.metrics.limited(limitPacket)
			return pk, c.end5(packets.ErrPacketTooLarge)
		}
		if err := c.throttle(&pk); err != nil {
			return pk, err
		}
	case packets.Subscribe, packets.Unsubscribe:
		if c.packetID = pk.PacketID; c.packetID > 0 {
			pk.FixedHeader.Qos, pk.PacketID = 0, 0
		}
	case packets.Pubrel:
		s := c.session.Load()
		c.packetID, c.released = pk.PacketID, s != nil && s.release(pk.PacketID)
		pk.PacketID = 0
	case packets.Disconnect:
		if pk.FixedHeader.Remaining == 1 {
			pk.ReasonCode = c.frames.reason
		}
	case packets.Puback, packets.Pubcomp:
		c.windowOpens()
		c.ease()
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
	c.held.Add(1)
	defer c.held.Add(-1)
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
	if pk.FixedHeader.Type != packets.Disconnect {
		c.awaitQuiet()
	}
	switch pk.FixedHeader.Type {
	case packets.Publish:
		c.written()
		if pk.FixedHeader.Qos > 0 {
			c.windowTakes()
		}
	case packets.Connack:
		if cl.Properties.ProtocolVersion < 5 {
			pk.ReasonCode = returnCode(pk.ReasonCode)
		}
		if pk.ReasonCode == packets.CodeSuccess.Code {
			c.session.Store(h.sessions.start(cl.ID, pk.SessionPresent, c.account))
			pk.Properties.ReceiveMaximum = uint16(c.pending)
			if pk.SessionPresent {
				inOrder(cl)
			}
			cl.State.Inflight.Delete(0) // of the connection that was taken over
			// mochi takes deliveries of QoS 2 off the room for inbound messages,
			// and ends the connection when there is none; expect has its own bound.
			cl.State.Inflight.ResetReceiveQuota(math.MaxInt32)
		}
	case packets.Puback, packets.Pubrec, packets.Suback, packets.Unsuback:
		if pk.PacketID == 0 {
			pk.PacketID = c.packetID
		}
		if pk.FixedHeader.Type == packets.Suback {
			c.verdict(&pk)
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

// returnCode makes a reason code a return code of MQTT 3.1.1 (table 3.1), which
// mochi does for some.
func returnCode(reason byte) byte {
	switch reason {
	case packets.ErrUnspecifiedError.Code, packets.ErrClientIdentifierNotValid.Code: // the first: a session without a client id
		return packets.Err3ClientIdentifierNotValid.Code
	case packets.ErrBadUsernameOrPassword.Code, packets.ErrNotAuthorized.Code:
		return packets.Err3NotAuthorized.Code
	}
	if reason > packets.Err3NotAuthorized.Code {
		return packets.Err3ServerUnavailable.Code
	}
	return reason
}

// inOrder numbers what is on the way to a client that is back, in the order in
// which it was published [MQTT-4.6.0-1]: mochi sends it again in the order of the
// lower 16 bits of Created, which OnPublish has made a number for that.
func inOrder(cl *mqtt.Client) {
	all := cl.State.Inflight.GetAll(false)
	slices.SortStableFunc(all, func(a, b packets.Packet) int { return cmp.Compare(a.Created, b.Created) })
	for i, pk := range all {
		pk.Created = int64(i)
		cl.State.Inflight.Set(pk)
	}
}

// OnPublish takes telemetry in.
func (h *hooks) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connectionOf(cl)
	pk.Created = h.sequence.Add(1) // see inOrder
	if c == nil {
		return pk, nil // our own
	}
	if pk.TopicName == "" {
		// An alias that stands for nothing; mochi would publish on no topic.
		_ = c.end5(packets.ErrProtocolViolation) // it is the reason, not a failure
		return pk, packets.ErrRejectPacket
	}
	r := c.route(pk.TopicName)
	if code := c.forbids(r); code != packets.CodeSuccess {
		return pk, h.refusePublish(c, pk, code)
	}
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
func (h *hooks) OnPublishDropped(cl *mqtt.Client, _ packets.Packet) {
	if c := connectionOf(cl); c != nil {
		c.unwritten.Add(-1)
		h.complain("a subscriber reads too slowly, messages for it are dropped", "client", cl.ID)
	}
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
	defer h.guard(cl, "prepare will")
	p := &cl.Properties
	p.Will.WillDelayInterval = min(p.Will.WillDelayInterval, p.Props.SessionExpiryInterval-min(p.Props.SessionExpiryInterval, 2))
	if h.route(will.TopicName).format != "" {
		will.Retain = false
	} else if c := connectionOf(cl); will.Retain && c != nil {
		if over := h.retained.keep(will.TopicName, len(will.Payload), c.account); over != "" {
			will.Retain = false
			h.metrics.limited(over)
			h.metrics.drops.WithLabelValues(dropRetain).Inc()
		}
	}
	return will, nil
}

// OnWillSent takes a will on a telemetry topic in.
func (h *hooks) OnWillSent(cl *mqtt.Client, pk packets.Packet) {
	defer h.guard(cl, "send will")
	h.takeWill(cl, pk)
}

// OnRetainedExpired gives back the room of a retained message.
func (h *hooks) OnRetainedExpired(topic string) {
	defer h.guard(nil, "expire retained message")
	h.retained.expired(topic)
}
