package main

import (
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"haidang/gateway/console"
	"haidang/gateway/spool"
)

// meters are the metrics of a machine: its own, and those of each part of the log
// that it has at present, labelled with the part and the partition.
type meters struct {
	*prometheus.Registry // its own

	mu    sync.Mutex
	parts []*prometheus.Registry
}

func newMeters() *meters {
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &meters{Registry: own}
}

// part returns where the metrics of a part go, until end is called. What is
// gathered there is that of the whole machine.
func (m *meters) part(p spool.Part) (_ console.Registry, end func()) {
	one := prometheus.NewRegistry()
	m.mu.Lock()
	m.parts = append(m.parts, one)
	m.mu.Unlock()
	with := prometheus.WrapRegistererWith(prometheus.Labels{"part": p.Role, "partition": partitionLabel(p)}, one)
	return struct {
			prometheus.Registerer
			prometheus.Gatherer
		}{with, m}, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.parts = slices.DeleteFunc(m.parts, func(r *prometheus.Registry) bool { return r == one })
		}
}

// partitionLabel is the partition of a part that has one, else empty.
func partitionLabel(p spool.Part) string {
	if p.Role == roleRules || p.Role == roleStore || p.Role == rolePost {
		return strconv.Itoa(p.Partition)
	}
	return ""
}

// Gather gathers the metrics of the machine and of its parts.
func (m *meters) Gather() ([]*dto.MetricFamily, error) {
	m.mu.Lock()
	all := prometheus.Gatherers{m.Registry}
	for _, r := range m.parts {
		all = append(all, r)
	}
	m.mu.Unlock()
	return all.Gather()
}
