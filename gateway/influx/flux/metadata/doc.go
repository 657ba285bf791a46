// Package metadata is empty: see package flux.
package metadata
