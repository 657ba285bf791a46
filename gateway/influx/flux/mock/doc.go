// Package mock is empty: see package flux.
package mock
