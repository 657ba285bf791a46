// Package dependencies is empty: see package flux.
package dependencies
