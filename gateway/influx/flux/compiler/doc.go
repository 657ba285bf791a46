// Package compiler is empty: see package flux.
package compiler
