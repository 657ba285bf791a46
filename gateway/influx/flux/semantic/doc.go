// Package semantic is empty: see package flux.
package semantic
