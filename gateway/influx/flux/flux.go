// Package flux stands in for github.com/influxdata/flux, the query language of
// InfluxDB 2, so that the InfluxDB 1 engine compiles without it.
//
// The real module is written half in Rust and needs cgo, a C tool chain and a
// hundred further modules. The engine (tsdb, coordinator, services/httpd) names
// a few of its types and calls none of it as long as the Flux query service is
// off, which it is here: /api/v2/query answers "Flux query service disabled".
// This module therefore holds the declarations the compiler asks for and
// nothing else:
//
//   - flux, csv and lang: types named by query/encode.go, flux/client and
//     services/httpd of the engine;
//   - values and interval: the windows of fixed length that storage/reads
//     names;
//   - the remaining packages are empty. Tests of the engine import them, and
//     the go command wants to find every package that is imported by a test of
//     a dependency.
//
// The declarations were written against what the engine uses; nothing was
// copied from Flux.
package flux

import (
	"io"
	"time"
)

// CompilerType names a kind of Compiler.
type CompilerType string

// Compiler turns a request into a program. There is none here.
type Compiler interface {
	CompilerType() CompilerType
}

// CompilerMappings would register compilers by their name.
type CompilerMappings map[CompilerType]func() Compiler

// DialectType names a kind of Dialect.
type DialectType string

// Dialect chooses the encoder of a result.
type Dialect interface {
	Encoder() MultiResultEncoder
	DialectType() DialectType
}

// MultiResultEncoder writes results to w and returns the number of bytes.
type MultiResultEncoder interface {
	Encode(w io.Writer, results ResultIterator) (int64, error)
}

// ResultIterator walks over the results of a query.
type ResultIterator interface {
	More() bool
	Next() Result
	Release()
	Err() error
	Statistics() Statistics
}

// Result is one named result.
type Result interface {
	Tables() TableIterator
}

// TableIterator calls f for each table.
type TableIterator interface {
	Do(f func(Table) error) error
}

// Table calls f for each block of columns.
type Table interface {
	Do(f func(ColReader) error) error
}

// ColReader is a block of columns.
type ColReader interface {
	Len() int
}

// Statistics is what the engine would log about a query.
type Statistics struct {
	TotalDuration   time.Duration
	CompileDuration time.Duration
	ExecuteDuration time.Duration
	MaxAllocated    int64
	TotalAllocated  int64
}

// Query is a running query.
type Query interface {
	Cancel()
	Done()
	Err() error
	Statistics() Statistics
}

// NewResultIteratorFromQuery returns an iterator without results: no Query can
// exist in this module.
func NewResultIteratorFromQuery(q Query) ResultIterator { return noResults{q} }

type noResults struct{ query Query }

func (noResults) More() bool               { return false }
func (noResults) Next() Result             { return nil }
func (noResults) Release()                 {}
func (r noResults) Err() error             { return r.query.Err() }
func (r noResults) Statistics() Statistics { return r.query.Statistics() }
