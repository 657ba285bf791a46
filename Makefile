# Hải Đăng. `make help` lists what there is.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOL    := $(GO) tool -modfile=$(CURDIR)/.ci/tools/go.mod
FUZZ    ?= 10s
LOAD    ?= 10
export CGO_ENABLED ?= 0

.PHONY: help run build test race lint fuzz bench faults faults-ci cluster cluster-ci cluster-load load e2e release release-check clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

run: ## start the demo: everything embedded, a simulated field, a flood in a minute
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/haidang ./gateway
	@bin/haidang demo

build: ## build bin/haidang, one static binary
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/haidang ./gateway

test: ## run every test that needs Go alone; tests with other needs say why they are skipped
	$(GO) vet ./...
	$(GO) test -shuffle=on ./...

race: ## run the tests under the race detector (needs a C compiler); not those of files only
	CGO_ENABLED=1 $(GO) test -race -shuffle=on -timeout 20m $$($(GO) list ./... | grep -vE '/(deploy|dashboards)($$|/)')

lint: ## formatting, go vet and staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt-ed:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

fuzz: ## fuzz every decoder for FUZZ=10s each
	.ci/fuzz $(FUZZ)

bench: ## print the figures: broker, whole path, rules, AIS, idle memory, time to ready
	.ci/bench

faults: ## power cuts, full disks, damage, dead neighbours: hours, as root; prints a table
	HAIDANG_SWEEP=1 $(GO) test -count=1 -timeout 1h -run TestSweep ./gateway/spool
	HAIDANG_FAULTS=full $(GO) test -count=1 -timeout 12h -v ./gateway/faults

faults-ci: ## each fault a few times: some minutes, as root for the disks
	HAIDANG_FAULTS=ci $(GO) test -count=1 -timeout 15m ./gateway/faults

cluster: ## the log in a cluster: servers die, machines with roles are killed, cut off and upgraded (as root: in network namespaces)
	HAIDANG_CLUSTER=1 $(GO) test -count=1 -run 'Cluster|Nodes|Quorum|Waits|Standby|Refuses|Stale|Refill|UplinkRoles' ./gateway/spool ./gateway
	HAIDANG_CLUSTER=1 $(GO) test -count=1 -timeout 30m -v -run 'TestCluster(Faults|Standby|Upgrade)' ./gateway/faults

cluster-ci: ## a server killed, a machine cut off, everything restarted: about a minute; prints a table
	HAIDANG_CLUSTER=ci $(GO) test -count=1 -timeout 10m -v -run 'TestClusterFaults' ./gateway/faults

cluster-load: ## readings/s with 1, 2 and 4 partitions, replicas 1 and 3, beside the embedded log; LOAD=10 seconds a run
	HAIDANG_LOAD=$(LOAD) $(GO) test -count=1 -timeout 1h -v -run 'TestClusterLoad' ./gateway/faults

load: ## readings/s and waits of the whole path, LOAD=10 seconds a run, also on a slow disk (strace)
	HAIDANG_LOAD=$(LOAD) $(GO) test -count=1 -timeout 1h -v -run 'TestLoad' ./gateway/faults

e2e: ## a release installed and asked by every panel; peers: mosquitto, gpsd, curl (installs Debian packages)
	.ci/peers
	HAIDANG_E2E=1 $(GO) test -count=1 -p 1 -run 'TestE2E' ./gateway ./deploy

release: ## archives with checksums for amd64, arm64 and armv7 in dist/
	VERSION=$(VERSION) deploy/release

release-check: ## builds the release twice, runs it in emulators of arm64 and armv7 (Debian: qemu-user-static), as root
	HAIDANG_RELEASE=1 $(GO) test -count=1 -timeout 60m -v -run 'TestReleaseRuns' ./deploy

clean: ## remove what was built
	rm -rf bin dist
