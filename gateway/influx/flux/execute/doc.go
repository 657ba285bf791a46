// Package execute is empty: see package flux.
package execute
