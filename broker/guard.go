package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"haidang/gateway/telemetry"
)

// Accounts say who a client is. Their errors are *telemetry.Denial.
type Accounts interface {
	// Authenticate returns the account of a user and its secret; without
	// accounts, that of anyone.
	Authenticate(ctx context.Context, user, secret string, from netip.Addr) (*telemetry.Account, error)
	// Certificate returns the account that a certificate names, which a listener
	// has verified.
	Certificate(certificate *x509.Certificate) (*telemetry.Account, error)
}

// open to everybody: a broker without accounts, on loopback.
type nobodysBroker struct{ anyone *telemetry.Account }

func (n nobodysBroker) Authenticate(context.Context, string, string, netip.Addr) (*telemetry.Account, error) {
	return n.anyone, nil
}

func (n nobodysBroker) Certificate(*x509.Certificate) (*telemetry.Account, error) {
	return n.anyone, nil
}

// Why somebody was denied, besides the reasons of telemetry.Denial.
const (
	deniedPublish   = "publish"        // a topic where the account may not write
	deniedSubscribe = "subscribe"      // a filter that matches what it may not read
	deniedWill      = "will"           // a will on such a topic
	deniedDevice    = "not_own_device" // a reading of a device that it does not speak for
)

// maxWaiting is how many clients with wrong secrets wait for their answer.
const maxWaiting = 256

// idSeparator stands between the account and the client id that a client gave,
// in the id under which its session is kept: nobody can take over, or see, the
// session of another account. Names of accounts have no such character.
const idSeparator = "/"

// admit says who the client is. Name and secret count; a client without them is
// who its certificate names.
func (c *connection) admit(pk packets.Packet) (*telemetry.Account, error) {
	accounts := c.broker.accounts
	user, secret := string(pk.Connect.Username), string(pk.Connect.Password)
	if certificate := c.certificate(); certificate != nil && secret == "" {
		account, err := accounts.Certificate(certificate)
		if err == nil && user != "" && account.Name != "" && user != account.Name {
			return nil, &telemetry.Denial{Reason: telemetry.DeniedWrong, Detail: fmt.Sprintf("the certificate is that of %q", account.Name)}
		}
		return account, err
	}
	return accounts.Authenticate(c.open, user, secret, c.address())
}

// certificate is what the client presented and its listener verified, or nil.
func (c *connection) certificate() *x509.Certificate {
	conn := c.Conn
	if s, ok := conn.(*stream); ok {
		conn = s.Conn
	}
	t, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	if state := t.ConnectionState(); len(state.VerifiedChains) > 0 {
		return state.PeerCertificates[0]
	}
	return nil
}

// address is where the client comes from.
func (c *connection) address() netip.Addr {
	if at, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return at.AddrPort().Addr().Unmap() // a listener of both families says ::ffff:192.0.2.1
	}
	return netip.Addr{}
}

// network is the address, or the /64 of IPv6.
func (c *connection) network() netip.Addr { return networkOf(c.RemoteAddr()) }

// greet lets a client in, or answers why not.
func (h *hooks) greet(c *connection, cl *mqtt.Client, pk packets.Packet) error {
	account, err := c.admit(pk)
	if err != nil {
		return h.deny(c, cl, string(pk.Connect.Username), err)
	}
	c.account = account
	if account.Name != "" {
		cl.ID = account.Name + idSeparator + cl.ID
	}
	if will := &cl.Properties.Will; will.Flag != 0 {
		if code := h.judgeWill(c, will.TopicName); code != packets.CodeSuccess {
			return h.refuseConnect(cl, code)
		}
	}
	c.takeTurn(cl.ID)
	old, known := h.server.Clients.Get(cl.ID)
	if !known && h.server.Clients.Len() >= 2*h.cfg.MaxClients {
		return h.refuseConnect(cl, packets.ErrServerBusy)
	}
	takeover := known && !old.Closed()
	if known && old.Properties.ProtocolVersion == 5 && old.Properties.Props.SessionExpiryInterval == 0 && !pk.Connect.Clean {
		// Its session ends with the connection (3.1.2.11.2), which ends here; mochi
		// would hand it on.
		_ = h.server.DisconnectClient(old, packets.ErrSessionTakenOver) // it is the reason, not a failure
		h.leave(connectionOf(old))
		known = false
	}
	pace, over := h.usages.connect(account, takeover, known)
	if over != "" {
		h.metrics.limited(over)
		h.complain("an account has too many "+over, "account", account.Name, "address", c.address())
		return h.refuseConnect(cl, packets.ErrQuotaExceeded)
	}
	c.counted, c.pace = true, pace
	c.admitted.Store(true)
	return nil
}

func (h *hooks) judgeWill(c *connection, topic string) packets.Code {
	r := h.route(topic)
	switch {
	case topic == "" || r.own || h.deep(topic) || !mqtt.IsValidFilter(topic, true):
		return packets.ErrTopicNameInvalid
	case !c.account.MayPublish(topic) || r.device != "" && !c.account.Speaks(r.device):
		h.metrics.denied(deniedWill)
		h.complain("a client may not leave this will", "account", c.account.Name, "topic", fmt.Sprintf("%.200s", topic))
		return packets.ErrNotAuthorized
	}
	return packets.CodeSuccess
}

// deny answers a client that is not let in, not before its time.
func (h *hooks) deny(c *connection, cl *mqtt.Client, user string, err error) error {
	denial, ok := errors.AsType[*telemetry.Denial](err)
	if !ok {
		denial = &telemetry.Denial{Reason: telemetry.DeniedBusy, Detail: err.Error()}
	}
	h.metrics.denied(denial.Reason)
	h.complain("a client is not let in", "reason", denial.Reason, "user", fmt.Sprintf("%.128s", user), "address", c.address(), "error", denial.Detail)
	if wait := time.Until(denial.Until); wait > 0 {
		select {
		case h.waiting <- struct{}{}:
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-c.open.Done():
			}
			timer.Stop()
			<-h.waiting
		default: // answered at once: waiting costs memory
		}
	}
	code := packets.ErrNotAuthorized
	switch denial.Reason {
	case telemetry.DeniedWrong:
		code = packets.ErrBadUsernameOrPassword
	case telemetry.DeniedSlow:
		code = packets.ErrConnectionRateExceeded
	case telemetry.DeniedBusy:
		code = packets.ErrServerBusy
	}
	return h.refuseConnect(cl, code)
}

// refuseConnect answers CONNECT with a reason and returns it.
func (h *hooks) refuseConnect(cl *mqtt.Client, code packets.Code) error {
	answer := code
	if cl.Properties.ProtocolVersion < 5 {
		switch code {
		case packets.ErrNotAuthorized:
			answer = packets.Err3NotAuthorized
		case packets.ErrBadUsernameOrPassword: // MQTT 3.1.1, table 3.1
			answer = packets.Code{Code: 4, Reason: code.Reason}
		default:
			answer = packets.Err3ServerUnavailable
		}
	}
	if err := h.server.SendConnack(cl, answer, false, nil); err != nil {
		return fmt.Errorf("answer CONNECT of %q: %w", cl.ID, err)
	}
	return code
}

// judge says whether a client may subscribe.
func (h *hooks) judge(c *connection, cl *mqtt.Client, filter string, adding int) packets.Code {
	switch {
	case h.deep(filter):
		h.metrics.limited(limitLevels)
		return packets.ErrTopicFilterInvalid
	case !c.account.MaySubscribe(filter):
		h.metrics.denied(deniedSubscribe)
		h.complain("a client may not subscribe", "account", c.account.Name, "client", cl.ID, "filter", fmt.Sprintf("%.200s", filter))
		return packets.ErrNotAuthorized
	}
	if _, has := cl.State.Subscriptions.Get(filter); has {
		return packets.CodeSuccess
	}
	if most := c.account.Limits.Subscriptions; most > 0 && cl.State.Subscriptions.Len()+adding >= most {
		h.metrics.limited(limitSubscriptions)
		return packets.ErrQuotaExceeded
	}
	if atomic.LoadInt64(&h.server.Info.Subscriptions)+int64(adding) >= int64(h.cfg.Limits.Subscriptions) {
		h.metrics.limited(limitTotalSubs)
		return packets.ErrQuotaExceeded
	}
	return packets.CodeSuccess
}

// impossible is no topic filter: mochi refuses it, and the answer gets the real
// reason.
const impossible = "#/#"

// OnSubscribe judges each filter. mochi's own question (OnACLCheck) comes for
// every delivery as well, and can answer with one reason only.
func (h *hooks) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := connectionOf(cl)
	if c == nil {
		return pk
	}
	filters := make(packets.Subscriptions, len(pk.Filters))
	c.verdicts = make([]packets.Code, len(filters))
	c.asking, c.existed = true, make([]bool, len(filters))
	adding := 0
	for i, sub := range pk.Filters {
		filters[i] = sub
		_, c.existed[i] = cl.State.Subscriptions.Get(sub.Filter)
		c.verdicts[i] = h.judge(c, cl, sub.Filter, adding)
		if c.verdicts[i] != packets.CodeSuccess {
			filters[i].Filter = impossible
		} else {
			adding++
		}
	}
	pk.Filters = filters
	return pk
}

// verdict puts the reasons of OnSubscribe into the answer; those of MQTT 3.1.1
// are all 0x80.
func (c *connection) verdict(pk *packets.Packet) {
	if !c.version5() {
		return
	}
	for i, code := range c.verdicts {
		if code != packets.CodeSuccess && i < len(pk.ReasonCodes) {
			pk.ReasonCodes[i] = code.Code
		}
	}
}

// revoke ends a session whose account was removed or changed: the connection,
// its will, its subscriptions and what was queued. When the account only has a new
// secret, subscriptions and queue wait for the client that comes with it.
func (b *Broker) revoke(id string, s *session, cause error) {
	if !b.enter() {
		return
	}
	defer b.goroutines.Done()
	rotated, kept := errors.AsType[*telemetry.Rotated](cause)
	if kept {
		b.sessions.goOn(id, s, rotated.Next.Life)
	} else {
		s.revoked.Store(true)
	}
	lock := b.turns.of(id)
	lock.Lock()
	defer lock.Unlock()
	cl, ok := b.server.Clients.Get(id)
	if !ok && !kept {
		b.sessions.end(id, s, nil)
	}
	if !ok {
		return
	}
	c := connectionOf(cl)
	if c == nil || c.session.Load() != s {
		return
	}
	if !cl.Closed() {
		b.metrics.revoked.Inc()
		atomic.StoreUint32(&cl.Properties.Will.Flag, 0)
		_ = c.end5(packets.ErrAdministrativeAction)
	}
	if !kept {
		b.leave(c)
	}
}
