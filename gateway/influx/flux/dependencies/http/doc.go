// Package http is empty: see package flux.
package http
