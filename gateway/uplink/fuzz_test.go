package uplink

import (
	"bytes"
	"testing"
)

// FuzzParts cuts bodies into frames: what it finds is there, in order, and nothing of
// the body is passed over.
func FuzzParts(f *testing.F) {
	for _, seed := range []string{
		"#1 0 1763800000000000000\nk,device=d n=1 1\nk,device=d n=2 2\n",
		"#1 3 1\nk n=1 1\n#2 0 2\nk n=1 1\n", "#1 0 1\n", "", "#", "#1 0 1", "#1 0 1\nk n=1", "#-1 0 1\n", "x\n", "#1 0 99999999999999999999\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		parts, err := splitParts(body)
		if err != nil {
			return
		}
		rest := body
		for _, p := range parts {
			at := bytes.IndexByte(rest, '\n') + 1
			if rest[0] != '#' || !bytes.HasPrefix(rest[at:], p.lines) || len(p.lines) > 0 && p.lines[len(p.lines)-1] != '\n' {
				t.Fatalf("%q of %q", p.lines, body)
			}
			rest = rest[at+len(p.lines):]
		}
		if len(rest) > 0 {
			t.Fatalf("%q is left of %q", rest, body)
		}
	})
}

// FuzzUnpack takes any bytes for a body: what comes of it is bounded.
func FuzzUnpack(f *testing.F) {
	p, err := newPress()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(p.close)
	f.Add(p.pack([]byte("#1 0 1\nk n=1 1\n")))
	f.Add(p.pack(make([]byte, 2*maxBody)))
	f.Add([]byte("rubbish"))
	f.Fuzz(func(t *testing.T, packed []byte) {
		body, err := p.unpack(packed)
		if err == nil && len(body) > maxBody {
			t.Fatalf("%d bytes", len(body))
		}
		if err != nil {
			return
		}
		head := &parcel{}
		if rest, err := splitHead(body, head); err == nil {
			_, _ = splitParts(rest)
		}
	})
}
