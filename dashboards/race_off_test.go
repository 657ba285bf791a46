//go:build !race

package dashboards

// racing: the race detector watches this run.
const racing = false
