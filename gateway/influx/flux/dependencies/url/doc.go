// Package url is empty: see package flux.
package url
