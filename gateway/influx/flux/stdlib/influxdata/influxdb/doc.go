// Package influxdb is empty: see package flux.
package influxdb
