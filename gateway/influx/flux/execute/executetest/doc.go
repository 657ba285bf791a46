// Package executetest is empty: see package flux.
package executetest
