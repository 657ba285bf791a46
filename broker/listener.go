package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// A listener accepts connections at one address.
type listener struct {
	net.Listener
	key   string // of the configuration
	serve func() error
	close func()
}

// bind opens the listeners that the configuration names.
func (b *Broker) bind() error {
	for _, l := range []struct{ key, address string }{
		{"listen", b.cfg.Listen}, {"tls.listen", b.cfg.TLS.Listen}, {"websocket.listen", b.cfg.Websocket.Listen},
	} {
		if l.address == "" {
			continue
		}
		bound, err := bindOne(l.key, l.address)
		if err != nil {
			return err
		}
		if err := b.encrypt(bound); err != nil {
			_ = bound.Close()
			return err
		}
		if l.key == "websocket.listen" {
			b.serveWebsocket(bound)
		} else {
			bound.serve = func() error { return b.acceptLoop(bound) }
		}
		b.listeners = append(b.listeners, bound)
	}
	return nil
}

// encrypt puts TLS before a listener that has certificates. The handshake
// happens on the first read, under the deadline for CONNECT.
func (b *Broker) encrypt(l *listener) error {
	var c *tls.Config
	var cert, key string
	switch l.key {
	case "tls.listen":
		c, cert, key = b.tls, b.cfg.TLS.Cert, b.cfg.TLS.Key
	case "websocket.listen":
		c, cert, key = b.wss, b.cfg.Websocket.Cert, b.cfg.Websocket.Key
	}
	if c == nil && cert == "" {
		return nil
	}
	if c == nil {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("broker.%s: load certificate %s with key %s: %w", l.key, cert, key, err)
		}
		c = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	l.Listener = tls.NewListener(gatedListener{l.Listener, b.gate}, throughGate(c))
	return nil
}

func bindOne(key, address string) (*listener, error) {
	// TCP_NODELAY is Go's default; dead peers are found within two minutes.
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}}
	l, err := lc.Listen(context.Background(), "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("broker.%s: %s is in use by another program: stop it or choose another port", key, address)
	case err != nil:
		return nil, fmt.Errorf("broker.%s: listen on %s: %w", key, address, err)
	}
	var once sync.Once
	return &listener{Listener: l, key: key, close: func() { once.Do(func() { _ = l.Close() }) }}, nil
}

// acceptLoop serves connections until the listener is closed.
func (b *Broker) acceptLoop(l *listener) error {
	var served sync.WaitGroup
	defer served.Wait()
	pause := 5 * time.Millisecond
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			served.Go(func() { b.serve(l.key, conn) })
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
			// Such a shortage passes; without a pause the loop would eat a core.
			b.complain("MQTT connection not accepted", "listener", l.key, "error", err)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
		default:
			return fmt.Errorf("broker.%s: accept: %w", l.key, err)
		}
	}
}

// serveWebsocket makes the listener one for MQTT over WebSocket.
func (b *Broker) serveWebsocket(l *listener) {
	waiting := &lobby{most: maxLobby, waiting: map[net.Conn]time.Time{}, dropped: func() { b.metrics.drops.WithLabelValues(dropConnections).Inc() }}
	server := &http.Server{
		ConnState: func(conn net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				waiting.enter(conn)
			case http.StateHijacked, http.StateClosed:
				waiting.leave(conn)
			}
		},
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.upgrade(l.key, w, r) }),
		ReadHeaderTimeout: connectTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // of clients that speak no HTTP
	}
	server.SetKeepAlivesEnabled(false) // who does not upgrade has nothing more to ask
	closeListener := l.close
	l.close = func() {
		closeListener()
		_ = server.Close() // connections that were not upgraded yet
	}
	l.serve = func() error {
		err := server.Serve(l.Listener)
		if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		return fmt.Errorf("broker.%s: serve: %w", l.key, err)
	}
}
