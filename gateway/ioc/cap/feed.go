package cap

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// FeedPath is where the feed is served; messages are beside it.
	FeedPath = "/cap/feed.atom"
	feedBase = "/cap/"

	maxEntries = 200            // of the feed, the newest
	keepInFeed = 24 * time.Hour // after a Cancel
	feedMaxAge = time.Minute    // how long those who poll may keep it
)

// A Feed serves the messages to whoever polls: FeedPath is an Atom feed (RFC
// 4287) of the newest message of each incident that lasts or ended in the last
// day, and /cap/{identifier}.xml is each message. Both have an ETag and a
// Last-Modified, so that polling costs little.
type Feed struct {
	chronicle *Chronicle
	composer  *Composer
	title     string
	began     time.Time
	now       func() time.Time

	mu      sync.Mutex
	written rendered
}

// A rendered feed is kept as long as nothing has changed.
type rendered struct {
	version uint64
	until   time.Time
	updated time.Time
	text    []byte
	etag    string
}

// NewFeed makes the feed of a chronicle. title names the gateway.
func NewFeed(chronicle *Chronicle, composer *Composer, title string, now func() time.Time) *Feed {
	return &Feed{chronicle: chronicle, composer: composer, title: title, began: now(), now: now}
}

// ServeHTTP answers GET and HEAD below /cap/.
func (f *Feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == FeedPath {
		feed, err := f.render()
		if err != nil {
			http.Error(w, "the feed cannot be written", http.StatusInternalServerError)
			return
		}
		f.serve(w, r, "application/atom+xml; charset=utf-8", feed)
		return
	}
	name, isFile := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, feedBase), ".xml")
	b, found := f.chronicle.Find(name, f.now())
	if !isFile || !found || !f.shows(&b) {
		http.Error(w, "there is no such message", http.StatusNotFound)
		return
	}
	text, err := f.composer.Message(&b).Encode()
	if err != nil {
		http.Error(w, "the message cannot be written", http.StatusInternalServerError)
		return
	}
	f.serve(w, r, MediaType+"; charset=utf-8", rendered{updated: b.Sent, text: text, etag: tag(text)})
}

// tag is the ETag of a text.
func tag(text []byte) string {
	sum := sha256.Sum256(text)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

func (f *Feed) serve(w http.ResponseWriter, r *http.Request, media string, what rendered) {
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("ETag", what.etag)
	scope := "private"
	if f.composer.cfg().Feed.Public {
		scope = "public"
		h.Set("Access-Control-Allow-Origin", "*") // pages of others may read what is public
	}
	h.Set("Cache-Control", fmt.Sprintf("%s, max-age=%d", scope, int(feedMaxAge.Seconds())))
	http.ServeContent(w, r, "", what.updated, bytes.NewReader(what.text))
}

// shows reports whether a message is for those who read the feed.
func (f *Feed) shows(b *Bulletin) bool {
	cfg := &f.composer.cfg().Feed
	return b.Height >= cfg.MinSeverity && (cfg.Exercise || !b.Warning.Exercise) && f.composer.Public(&b.Warning)
}

type atomFeed struct {
	XMLName   xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID        string      `xml:"id"`
	Title     string      `xml:"title"`
	Updated   string      `xml:"updated"`
	Author    atomAuthor  `xml:"author"`
	Generator string      `xml:"generator"`
	Links     []atomLink  `xml:"link"`
	Entries   []atomEntry `xml:"entry"`
}

type atomAuthor struct {
	Name string `xml:"name"`
}

type atomLink struct {
	Rel  string `xml:"rel,attr"`
	Type string `xml:"type,attr"`
	Href string `xml:"href,attr"`
}

type atomEntry struct {
	ID         string     `xml:"id"`
	Title      atomText   `xml:"title"`
	Updated    string     `xml:"updated"`
	Published  string     `xml:"published"`
	Summary    atomText   `xml:"summary"`
	Categories []atomTerm `xml:"category"`
	Links      []atomLink `xml:"link"`
}

type atomText struct {
	Language string `xml:"http://www.w3.org/XML/1998/namespace lang,attr"`
	Text     string `xml:",chardata"`
}

type atomTerm struct {
	Scheme string `xml:"scheme,attr"`
	Term   string `xml:"term,attr"`
}

// render writes the feed, or returns what it wrote before when nothing has
// changed since.
func (f *Feed) render() (rendered, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, version := f.now(), f.chronicle.version()
	if f.written.version == version && now.Before(f.written.until) && f.written.text != nil {
		return f.written, nil
	}
	updated := f.began
	feed := atomFeed{
		Title: f.title, Generator: "haidang", Author: atomAuthor{f.author()},
		ID:    f.urn(""),
		Links: []atomLink{{"self", "application/atom+xml", f.href("feed.atom")}},
	}
	for _, b := range f.chronicle.Newest(now.Add(-keepInFeed), now) {
		if !f.shows(&b) || len(feed.Entries) == maxEntries {
			continue
		}
		if len(feed.Entries) == 0 {
			updated = b.Sent
		}
		feed.Entries = append(feed.Entries, f.entry(&b))
	}
	feed.Updated = Time(updated)
	text, err := xml.MarshalIndent(&feed, "", "  ")
	if err != nil {
		return rendered{}, fmt.Errorf("write the feed: %w", err)
	}
	text = append(append([]byte(xml.Header), text...), '\n')
	f.written = rendered{version: version, until: now.Add(feedMaxAge), updated: updated, text: text, etag: tag(text)}
	return f.written, nil
}

func (f *Feed) entry(b *Bulletin) atomEntry {
	m := f.composer.Message(b)
	info := &m.Infos[0]
	return atomEntry{
		ID: f.urn(b.Identifier), Updated: m.Sent, Published: Time(b.Warning.Start),
		Title: atomText{info.Language, info.Headline}, Summary: atomText{info.Language, info.Description},
		Categories: []atomTerm{
			{"urn:oasis:names:tc:emergency:cap:1.2:status", m.Status},
			{"urn:oasis:names:tc:emergency:cap:1.2:msgType", m.Type},
			{"urn:oasis:names:tc:emergency:cap:1.2:severity", info.Severity},
		},
		Links: []atomLink{{"alternate", MediaType, f.href(b.Identifier + ".xml")}},
	}
}

func (f *Feed) author() string {
	if name := pick(f.composer.cfg().SenderName, true); name != "" {
		return name
	}
	return f.composer.sender
}

// href is relative to the feed where nobody has said what the world calls it.
func (f *Feed) href(name string) string {
	base := f.composer.cfg().Feed.URL
	if base == "" {
		return name
	}
	return strings.TrimSuffix(base, "/") + "/" + name
}

// urn is a name that does not change when the feed moves.
func (f *Feed) urn(identifier string) string {
	sum := sha256.Sum256([]byte(f.composer.sender + "," + identifier))
	h := hex.EncodeToString(sum[:16])
	// RFC 9562, 5.8: version 8 leaves the bits to the maker.
	return "urn:uuid:" + h[:8] + "-" + h[8:12] + "-8" + h[13:16] + "-a" + h[17:20] + "-" + h[20:32]
}
