package broker

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// upgrade serves MQTT on a WebSocket (MQTT 5, section 6).
func (b *Broker) upgrade(key string, w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{
		HandshakeTimeout: connectTimeout,
		Subprotocols:     []string{"mqtt", "mqttv3.1"},
		CheckOrigin: func(r *http.Request) bool {
			return sameMachine(r) || listed(b.cfg.Websocket.Origins, r.Header.Get("Origin"))
		},
	}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		b.metrics.disconnects.WithLabelValues("no_connect").Inc()
		return // the upgrader has answered
	}
	ws.SetReadLimit(2 * max(maxPacketBytes, int64(b.cfg.Limits.PacketBytes)))
	b.serve(key, &stream{Conn: ws.NetConn(), ws: ws})
}

func listed(origins []string, origin string) bool {
	return slices.ContainsFunc(origins, func(o string) bool { return o == "*" || strings.EqualFold(o, origin) })
}

// sameMachine lets in programs, which send no Origin, and pages of this
// machine, such as the console on its own port; a page from elsewhere could
// publish through the browser of whoever reads it.
func sameMachine(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Host == r.Host || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// A stream is the bytes in the binary messages of a WebSocket [MQTT-6.0.0-1].
type stream struct {
	net.Conn
	ws      *websocket.Conn
	message io.Reader // the message at hand; nil between messages
	writes  sync.Mutex

	deadline atomic.Pointer[time.Time] // of writes
}

// Read reads on, over the borders of messages [MQTT-6.0.0-2].
func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.message == nil {
			kind, r, err := s.ws.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("a WebSocket message that is not binary")
			}
			s.message = r
		}
		n, err := s.message.Read(p)
		if err == io.EOF {
			s.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write sends p as one message.
func (s *stream) Write(p []byte) (int, error) {
	s.writes.Lock()
	defer s.writes.Unlock()
	if t := s.deadline.Load(); t != nil {
		_ = s.ws.SetWriteDeadline(*t) // never fails
	}
	if err := s.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetWriteDeadline sets the deadline of the write at hand and the next ones;
// the WebSocket would set none.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.deadline.Store(&t)
	return s.Conn.SetWriteDeadline(t)
}
