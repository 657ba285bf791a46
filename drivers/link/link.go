package link

import (
	"context"
	"fmt"
	"time"
)

// Options bound a link. A zero value means the default.
type Options struct {
	MaxLine  int           // bytes of a line without its end; DefaultMaxLine
	MaxPeers int           // connections of a listener, senders of datagrams; 64
	Connect  time.Duration // to make a connection; 10 s
	Idle     time.Duration // a connection or serial line that is silent for longer is closed; 0: never

	// Refused is called for every connection over MaxPeers, which is closed,
	// and for every sender of datagrams that was forgotten for a newer one.
	Refused func(peer string)
}

func (o Options) withDefaults() Options {
	if o.MaxLine <= 0 {
		o.MaxLine = DefaultMaxLine
	}
	if o.MaxPeers <= 0 {
		o.MaxPeers = 64
	}
	if o.Connect <= 0 {
		o.Connect = 10 * time.Second
	}
	if o.Refused == nil {
		o.Refused = func(string) {}
	}
	return o
}

// A Peer takes the lines of one talker: of one connection, of one sender of
// datagrams, of one file. Its methods are called one after the other.
type Peer interface {
	// Line takes one line without its end. The bytes are valid during the call.
	Line(line []byte)
	// TooLong takes the beginning of a line over Options.MaxLine; the rest of
	// it is dropped.
	TooLong(beginning []byte)
	// Pause says that all lines that have arrived were delivered. With ended the
	// talker is gone, and nothing follows.
	Pause(ended bool)
}

// A Join makes the Peer for a talker that appears. It is called on the
// talker's own goroutine.
type Join func(peer string) Peer

// A Line is an open line of bytes.
type Line interface {
	// Addr is where the line is: the address connected to or listened on, with
	// the port that the system chose, or the file.
	Addr() string
	// Run delivers lines until the context ends (nil), a file has been read
	// (nil) or the line breaks (an error that names it). It closes the line and
	// returns when all its goroutines have ended.
	Run(ctx context.Context, join Join) error
}

// Open connects, binds or opens the target. The line must then be Run, which
// also closes it.
func Open(ctx context.Context, t Target, o Options) (Line, error) {
	o = o.withDefaults()
	switch t.Scheme {
	case TCP, Serial:
		return dial(ctx, t, o)
	case Listen:
		return listen(ctx, t, o)
	case UDP:
		return bind(ctx, t, o)
	case File:
		return openFile(t, o)
	}
	return nil, fmt.Errorf("open %s: %s", t, want)
}
