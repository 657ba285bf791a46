// Package interpreter is empty: see package flux.
package interpreter
