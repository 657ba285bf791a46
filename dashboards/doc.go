// Package dashboards holds what Grafana shows of Hải Đăng: a data source, a
// provider and the dashboards, laid out as Grafana's provisioning expects them.
//
//	provisioning/datasources/haidang.yaml          the store, read by InfluxQL
//	provisioning/dashboards/haidang.yaml           where the dashboards lie
//	provisioning/dashboards/haidang/*.json         the dashboards, generated
//	generate/                                      their definitions
//
// The JSON is for Grafana 9.4 and later: panels of the core only, schemaVersion
// 37, a base map that needs no internet. Names of measurements and units come from the
// built-in kinds; alarm levels, names and owners are what the gateway writes of its
// registered devices. The tests run every query on the embedded engine.
package dashboards

//go:generate go run ./generate
