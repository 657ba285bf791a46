// Package lang declares the two compilers that the engine names.
package lang

import (
	"encoding/json"
	"time"

	"github.com/influxdata/flux"
)

// FluxCompiler holds the text of a query.
type FluxCompiler struct {
	Now    time.Time
	Extern json.RawMessage
	Query  string
}

// CompilerType is "flux".
func (FluxCompiler) CompilerType() flux.CompilerType { return "flux" }

// ASTCompiler holds the syntax tree of a query.
type ASTCompiler struct {
	Now    time.Time
	Extern json.RawMessage
	AST    json.RawMessage
}

// CompilerType is "ast".
func (ASTCompiler) CompilerType() flux.CompilerType { return "ast" }
