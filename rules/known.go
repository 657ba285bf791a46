package rules

import (
	"bytes"
	"fmt"
	"sync"
)

// Know tells the engine of a compiled document that the log or a checkpoint may
// bring: it then uses the set and does not read and compile the document again. A
// registry of a hundred thousand devices takes seconds, and its memory twice. It
// changes nothing of what the engine gives: a document has one meaning.
func (e *Engine) Know(set *Set) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known = set
}

// setOf returns the set of a document that is written as canonical JSON; known is
// one that may be it, or nil.
func setOf(text []byte, known *Set) (*Set, error) {
	if known != nil && known.hash == hashOf(text) {
		return known, nil
	}
	doc, err := parseDocument(text)
	if err != nil {
		return nil, err
	}
	set, faults := Compile(doc)
	if len(faults) > 0 {
		return nil, &refusedError{fmt.Errorf("compile its document: %d faults, the first: %s", len(faults), faults[0])}
	}
	return set, nil
}

// A refusedError is that of a document that was read and does not compile.
type refusedError struct{ error }

// A packing is a document as control records and checkpoints carry it: canonical
// JSON, deflated. That is done once, when it is first asked for; the text is not
// kept then.
type packing struct {
	once   sync.Once
	text   []byte // until it is packed
	packed []byte
	err    error
}

// take returns the packed text.
func (p *packing) take() ([]byte, error) {
	p.once.Do(func() {
		p.packed, p.err = deflate(p.text)
		p.text = nil
	})
	return p.packed, p.err
}

// know takes over what the text was packed to before.
func (p *packing) know(packed []byte) {
	p.once.Do(func() { p.packed, p.text = bytes.Clone(packed), nil })
}
