package uplink

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// A press packs and unpacks bodies; it is safe for concurrent use.
type press struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

func newPress() (*press, error) {
	// The window is that of a body: a small gateway has no memory for the default.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(512<<10), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, fmt.Errorf("make the compression: %w", err)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxBody), zstd.WithDecoderMaxWindow(maxBody))
	if err != nil {
		return nil, fmt.Errorf("make the compression: %w", err)
	}
	return &press{encoder, decoder}, nil
}

func (p *press) pack(body []byte) []byte { return p.encoder.EncodeAll(body, nil) }

// errLarge says that a body is too large when it is unpacked.
var errLarge = fmt.Errorf("unpacked it has more than %d bytes", maxBody)

func (p *press) unpack(packed []byte) ([]byte, error) {
	body, err := p.decoder.DecodeAll(packed, nil)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) || len(body) > maxBody {
		return nil, errLarge
	}
	return body, err
}

func (p *press) close() {
	p.decoder.Close()
	_ = p.encoder.Close() // nothing is buffered
}
