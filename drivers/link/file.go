package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

type file struct {
	f *os.File
	r io.Reader
	o Options
}

func openFile(t Target, o Options) (Line, error) {
	f, err := os.Open(t.Address)
	if err != nil {
		return nil, err // names the act and the file
	}
	r, err := Unzip(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", t.Address, err)
	}
	return &file{f: f, r: r, o: o}, nil
}

func (f *file) Addr() string { return f.f.Name() }

func (f *file) Run(ctx context.Context, join Join) error {
	defer f.f.Close()
	peer := join(f.Addr())
	defer peer.Pause(true)
	lines := NewLineReader(f.r, f.o.MaxLine)
	for ctx.Err() == nil {
		err := lines.Burst(peer.Line, peer.TooLong)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Addr(), err)
		}
		peer.Pause(false)
	}
	return nil
}
