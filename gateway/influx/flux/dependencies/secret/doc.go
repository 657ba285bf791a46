// Package secret is empty: see package flux.
package secret
