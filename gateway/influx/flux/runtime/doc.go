// Package runtime is empty: see package flux.
package runtime
