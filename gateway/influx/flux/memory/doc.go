// Package memory is empty: see package flux.
package memory
