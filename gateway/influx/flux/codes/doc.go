// Package codes is empty: see package flux.
package codes
