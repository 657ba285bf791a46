// Package universe is empty: see package flux.
package universe
