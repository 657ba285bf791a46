package ioc

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"
)

// lookTrust is how often the file of authorities is looked at, at most.
const lookTrust = 2 * time.Second

// A trust makes the connections of an endpoint, with the authorities that their file
// names now: one that is renewed is in force with the first request two seconds later
// at the latest. When the new file cannot be used, what was before holds. It is safe for
// concurrent use.
type trust struct {
	access    Access
	transport *http.Transport // without TLS; cloned for each set of authorities

	mu     sync.Mutex
	looked time.Time
	stamp  fileStamp
	client *http.Client // nil: there never was a file that can be used
	broken error        // why the file as it is now cannot be used
}

// A fileStamp tells one content of a file from another.
type fileStamp struct {
	modified time.Time
	size     int64
}

func stampOf(name string) fileStamp {
	if info, err := os.Stat(name); err == nil {
		return fileStamp{info.ModTime(), info.Size()}
	}
	return fileStamp{}
}

func newTrust(access Access, transport *http.Transport) *trust {
	t := &trust{access: access, transport: transport, looked: time.Now()}
	if access.CA != "" {
		t.stamp = stampOf(access.CA)
	}
	t.load()
	return t
}

// now returns the client for the next request. With a client the error says why it does
// not trust what the file names now.
func (t *trust) now() (*http.Client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at := time.Now(); t.access.CA != "" && at.Sub(t.looked) >= lookTrust {
		t.looked = at
		// One that could not be used is tried again: it may have been half written.
		if stamp := stampOf(t.access.CA); stamp != t.stamp || t.broken != nil {
			t.stamp = stamp
			t.load()
		}
	}
	return t.client, t.broken
}

// load makes a client anew. Requests under way end on the one of before, whose
// connections are not used again.
func (t *trust) load() {
	var secure *tls.Config
	if secure, t.broken = t.access.tls(""); t.broken != nil {
		if t.client != nil {
			t.broken = fmt.Errorf("the authorities of before hold: %w", t.broken)
		}
		return
	}
	before := t.client
	transport := t.transport.Clone()
	transport.TLSClientConfig = secure
	t.client = &http.Client{
		Transport: transport,
		// A 301 or 302 would turn the POST into a GET without a body, and any
		// redirect would take a signed warning to a place nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if before != nil {
		before.CloseIdleConnections()
	}
}
