package broker

import (
	"fmt"
	"math"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

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
		mqtt.OnDisconnect, mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnPacketProcessed, mqtt.OnPublish, mqtt.OnPublished, mqtt.OnPublishDropped,
		mqtt.OnSubscribed, mqtt.OnUnsubscribed, mqtt.OnSelectSubscribers, mqtt.OnWill, mqtt.OnWillSent, mqtt.OnClientExpired,
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

// OnACLCheck allows to publish and to subscribe: OnPublish refuses what a client
// may not publish, because here the QoS that the answer needs is not known, and
// OnSubscribe what it may not read. mochi asks before it delivers as well: what is
// its own ($SYS) it may, all else goes through the queue of the session.
func (h *hooks) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	c := connectionOf(cl)
	return c == nil || write || strings.HasPrefix(topic, mqtt.SysPrefix) || c.asking
}

// OnSelectSubscribers keeps $SYS from shared subscriptions that begin with a
// wildcard [MQTT-4.7.2-1]; mochi chooses for nothing else.
func (h *hooks) OnSelectSubscribers(s *mqtt.Subscribers, _ packets.Packet) *mqtt.Subscribers {
	for filter := range s.Shared {
		if parts := strings.SplitN(filter, "/", 3); len(parts) < 3 || !strings.HasPrefix(parts[2], "$") {
			delete(s.Shared, filter)
		}
	}
	return s
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
	c.window = h.cfg.Limits.Inflight
	if own > 0 {
		c.window = min(c.window, own)
	}
	if most := int(cl.Properties.Props.ReceiveMaximum); most > 0 {
		c.window = min(c.window, most)
	}
	if w := &pk.Connect; w.WillFlag {
		c.will = w.WillProperties
	}
	return nil
}

// OnSessionEstablish takes the flow control out of mochi's hands: deliveries are
// of the session's queue. Topic aliases towards clients are not used.
func (h *hooks) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) {
	cl.Properties.Props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)
	cl.Properties.Props.TopicAliasMaximum = 0
}

// OnSessionEstablished is called when CONNACK was sent.
func (h *hooks) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	c := connectionOf(cl)
	c.leaveTurn()
	c.in.open = true
	h.subscriptions.Add(1)
	c.session.Load().queue.attach(c, c.window)
	c.kick()
}

// OnDisconnect forgets a session that ends with its connection.
func (h *hooks) OnDisconnect(cl *mqtt.Client, _ error, expire bool) {
	h.subscriptions.Add(1)
	c := connectionOf(cl)
	if c == nil {
		return
	}
	c.takeTurn(cl.ID)           // what mochi does next must not meet a client that comes back
	cl.State.Inflight.Delete(0) // of an exchange that was cut off
	s := c.session.Load()
	if s != nil && s.revoked.Load() {
		h.leave(c)
	}
	if expire {
		h.sessions.end(cl.ID, s, c)
	}
}

// OnClientExpired removes the subscriptions of a session that nobody came back
// to; mochi leaves them.
func (h *hooks) OnClientExpired(cl *mqtt.Client) {
	defer h.guard(cl, "expire session")
	if c := connectionOf(cl); c != nil {
		h.sessions.end(cl.ID, c.session.Load(), nil)
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
		bytes := len(pk.TopicName) + len(pk.Payload)
		if c.tooLarge(bytes) {
			h.metrics.limited(limitPacket)
			return pk, c.end5(packets.ErrPacketTooLarge)
		}
		if err := c.throttle(bytes); err != nil {
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
	case packets.Puback, packets.Pubrec, packets.Pubcomp:
		c.acknowledge(&pk)
	}
	return pk, nil
}

// acknowledge takes an answer to a delivery, which mochi knows nothing of: it
// gets an answer that it passes over.
func (c *connection) acknowledge(pk *packets.Packet) {
	s := c.session.Load()
	if s == nil {
		return
	}
	refused := pk.ReasonCode >= packets.ErrUnspecifiedError.Code
	if pk.FixedHeader.Type == packets.Pubrec && !refused {
		answer := []byte{packets.Pubrel<<4 | 2, 2, byte(pk.PacketID >> 8), byte(pk.PacketID)}
		if !s.queue.received(pk.PacketID) && c.version5() {
			answer[1], answer = 3, append(answer, packets.ErrPacketIdentifierNotFound.Code) // 3.6.2.1
		}
		_, _ = c.Write(answer) // a failed write has closed the connection
	} else {
		s.queue.acknowledged(pk.PacketID)
		c.ease()
		c.kick()
	}
	pk.FixedHeader.Type, pk.PacketID = packets.Puback, 1
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
	case packets.Connack:
		if cl.Properties.ProtocolVersion < 5 {
			pk.ReasonCode = returnCode(pk.ReasonCode)
		}
		if pk.ReasonCode == packets.CodeSuccess.Code {
			c.session.Store(h.sessions.start(c, pk.SessionPresent))
			h.subscriptions.Add(1)
			pk.Properties.ReceiveMaximum = uint16(c.pending)
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

// OnPublish takes telemetry in.
func (h *hooks) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connectionOf(cl)
	if c == nil {
		return pk, nil
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

// OnPublishDropped counts figures of $SYS that a client reads too slowly.
func (h *hooks) OnPublishDropped(*mqtt.Client, packets.Packet) {
	h.metrics.drops.WithLabelValues(dropSys).Inc()
}

// OnSubscribed makes connections ask again whether they are heard, and notes what
// is to be sent once SUBACK is.
func (h *hooks) OnSubscribed(cl *mqtt.Client, pk packets.Packet, codes []byte) {
	h.subscriptions.Add(1)
	c := connectionOf(cl)
	if c == nil {
		return
	}
	c.asking, c.granted = false, nil
	existed := c.existed[:0]
	for i, sub := range pk.Filters {
		if i < len(codes) && codes[i] < packets.ErrUnspecifiedError.Code {
			c.granted, existed = append(c.granted, sub), append(existed, c.existed[i])
		}
	}
	c.existed = existed
}

// OnPacketProcessed sends retained messages behind SUBACK.
func (h *hooks) OnPacketProcessed(cl *mqtt.Client, pk packets.Packet, _ error) {
	c := connectionOf(cl)
	if c == nil || pk.FixedHeader.Type != packets.Subscribe {
		return
	}
	for i := range c.granted {
		h.sendRetained(c, &c.granted[i], c.existed[i])
	}
	c.granted = nil
}

// OnUnsubscribed makes connections ask again whether they are heard.
func (h *hooks) OnUnsubscribed(*mqtt.Client, packets.Packet) { h.subscriptions.Add(1) }

// Prefixes of the topics that wills have on their way through mochi, so that it
// gives them to nobody: clients may not subscribe there.
const (
	willPrefix         = "$will/"
	retainedWillPrefix = "$will-retained/"
)

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
	prefix := willPrefix
	if will.Retain {
		prefix = retainedWillPrefix
	}
	will.TopicName, will.Retain = prefix+will.TopicName, false
	return will, nil
}

// OnWillSent sends a will to those who hear it, and takes one on a telemetry topic
// in.
func (h *hooks) OnWillSent(cl *mqtt.Client, pk packets.Packet) {
	defer h.guard(cl, "send will")
	prefix, topic, _ := strings.Cut(pk.TopicName, "/")
	pk.TopicName, pk.FixedHeader.Retain = topic, prefix+"/" == retainedWillPrefix
	pk.Expiry, pk.Created = 0, time.Now().Unix()
	if c := connectionOf(cl); c != nil {
		pk.Properties = c.will
		pk.ProtocolVersion = cl.Properties.ProtocolVersion
		if s := int64(c.will.MessageExpiryInterval); s > 0 {
			pk.Expiry = pk.Created + s
		}
	}
	if pk.FixedHeader.Retain {
		h.retain(pk)
	}
	h.takeWill(cl, pk)
	h.broadcast(publicationOf(&pk, pk.FixedHeader.Qos))
}

// OnRetainedExpired gives back the room of a retained message.
func (h *hooks) OnRetainedExpired(topic string) {
	defer h.guard(nil, "expire retained message")
	h.retained.expired(topic)
}
