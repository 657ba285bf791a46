// Package plan is empty: see package flux.
package plan
