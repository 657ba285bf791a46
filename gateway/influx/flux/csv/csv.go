// Package csv declares the names of Flux's CSV encoder that the engine uses.
package csv

import (
	"errors"
	"io"

	"github.com/influxdata/flux"
)

// errNoFlux answers every attempt to encode a result.
var errNoFlux = errors.New("this program is built without Flux")

// DialectType is the name of the CSV dialect.
const DialectType flux.DialectType = "csv"

// ResultEncoderConfig chooses what an encoder would write.
type ResultEncoderConfig struct {
	Annotations []string
	NoHeader    bool
	Delimiter   rune
}

// DefaultEncoderConfig returns the zero configuration.
func DefaultEncoderConfig() ResultEncoderConfig { return ResultEncoderConfig{} }

// Dialect is a flux.Dialect whose encoder refuses.
type Dialect struct{ ResultEncoderConfig }

// Encoder returns an encoder that refuses.
func (d *Dialect) Encoder() flux.MultiResultEncoder {
	return NewResultEncoder(d.ResultEncoderConfig)
}

// DialectType is "csv".
func (*Dialect) DialectType() flux.DialectType { return DialectType }

// ResultEncoder refuses to encode.
type ResultEncoder struct{}

// NewResultEncoder returns an encoder that refuses.
func NewResultEncoder(ResultEncoderConfig) *ResultEncoder { return &ResultEncoder{} }

// Encode returns an error and writes nothing.
func (*ResultEncoder) Encode(io.Writer, flux.ResultIterator) (int64, error) { return 0, errNoFlux }

// EncodeError returns err joined with the refusal and writes nothing.
func (*ResultEncoder) EncodeError(_ io.Writer, err error) error { return errors.Join(errNoFlux, err) }
