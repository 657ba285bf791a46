// Package ast is empty: see package flux.
package ast
