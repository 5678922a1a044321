# Pilotlight. `make` lists the targets.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -X main.version=$(VERSION)

# What has unit tests; ./test holds those of the whole system, ./test/rights those of what it may do.
PACKAGES := ./bpf/... ./symbolizer/... ./profiler/... ./exporter/... ./cmd/...
# Rules of the tree, and the programs that test it.
HOUSE := ./test/house/... ./test/summary/...

BPF_SOURCES := $(shell find . -name '*.bpf.[ch]' -not -path './build/*')
SHELL_SOURCES := $(shell find test -name '*.sh' -not -path '*/node_modules/*') .ci/run
STATICCHECK := go tool -modfile=test/tools/go.mod staticcheck

# pclntab compares millions of addresses with what the runtime says: 5 minutes under the race detector even when
# shortened. There only its concurrent use runs; the comparison runs without.
COMPARED := ./symbolizer/pclntab
# These start no goroutines, which a test of the tree holds: the race detector would find nothing, in five times the time.
SEQUENTIAL := exporter/otlp exporter/pprof profiler/unwind symbolizer/demangle symbolizer/elfsym
RACED = $(filter-out %/pclntab $(addprefix %/,$(SEQUENTIAL)),$(shell go list $(PACKAGES)))

# Lengths; test-long raises them. -short makes the comparisons over large files coarser.
FUZZTIME ?= 5s
SHORT ?= -short
MINUTES ?= 10

# Where install puts things; DESTDIR goes before all of it.
PREFIX ?= /usr/local
UNITDIR ?= $(PREFIX)/lib/systemd/system
BINARY := $(DESTDIR)$(PREFIX)/bin/pilotlight
UNIT := $(DESTDIR)$(UNITDIR)/pilotlight.service

.PHONY: help build install uninstall run generate test test-fast test-long test-vm soak bench bench-page pictures lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/pilotlight; needs Go alone
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/pilotlight ./cmd/pilotlight

install: build ## install the binary and the systemd unit; PREFIX (/usr/local) and DESTDIR are honoured
	@install -D -m 0755 bin/pilotlight $(BINARY)
	@install -d $(DESTDIR)$(UNITDIR)
	@sed 's|^ExecStart=/usr/local/|ExecStart=$(PREFIX)/|' deploy/systemd/pilotlight.service >$(UNIT)
	@chmod 0644 $(UNIT)
	@echo "installed $(BINARY) and $(UNIT); to start: systemctl daemon-reload && systemctl enable --now pilotlight"

uninstall: ## remove what install installed (first: systemctl disable --now pilotlight)
	@rm -f $(BINARY) $(UNIT)

run: build ## start the agent with its page at http://127.0.0.1:7070; as root; ARGS="-p PID" is passed on
	@bin/pilotlight agent $(ARGS)

generate: ## build the BPF objects and bindings again; needs clang-19, llvm-19, libbpf-dev
	@go generate ./...

# A stage prints one line, and what it said where it failed; all run, whatever failed before, but for the first. The soak waits as
# often as it works for two minutes, and compares what it sees with CPU time: stages that take no samples run beside it. Nothing runs
# beside the emulated machines: one that waits for a CPU jumps over ticks of its clock.
STAGE := build/summary stage
# Most of their time is waiting: they run beside others.
RECEIVERS := ^TestChaos|^TestCollector|^TestPrometheus

build/summary: test/summary/main.go
	@go build -o $@ ./test/summary

test: build/summary ## test everything, installing what that needs (Debian, root)
	@rm -rf build/test
	@$(STAGE) setup test/setup.sh && { \
		$(STAGE) generated test/tools/generated.sh; \
		$(STAGE) lint $(MAKE) --no-print-directory lint; \
		$(STAGE) unit go test -json -race $(SHORT) -timeout 30m $(RACED); \
		$(STAGE) tables-race go test -json -race -run Concurrent $(COMPARED); \
		$(STAGE) soak go test -json -count=1 -timeout 60m -run '^TestSoak$$' ./test & \
		$(STAGE) receivers go test -json -count=1 -timeout 60m -run '$(RECEIVERS)' ./test & \
		$(STAGE) tables go test -json $(SHORT) -timeout 30m $(COMPARED) $(addprefix ./,$(SEQUENTIAL)); \
		$(STAGE) house go test -json $(HOUSE); \
		$(STAGE) fuzz test/tools/fuzz.sh $(FUZZTIME) $(PACKAGES); \
		wait; \
		$(STAGE) vm go run ./test/vm -json -table check; \
		$(STAGE) engines-setup test/engines/setup.sh; \
		$(STAGE) engines go test -C test/engines -json -count=1 -timeout 30m ./...; \
		$(STAGE) otlp go test -C test/otlp -json -count=1 -timeout 30m ./...; \
		$(STAGE) pyroscope go test -C test/pyroscope -json -count=1 -timeout 30m ./...; \
		$(STAGE) parca go test -C test/parca -json -count=1 -timeout 30m ./...; \
		$(STAGE) openapi go test -C test/openapi -json -count=1 -timeout 30m ./...; \
		$(STAGE) browser-setup test/browser/setup.sh; \
		$(STAGE) browser node --test --test-reporter=./test/browser/reporter.mjs test/browser/page.test.mjs; \
		$(STAGE) rights env CGO_ENABLED=0 go test -json -count=1 -timeout 30m ./test/rights; \
		$(STAGE) system go test -json -count=1 -timeout 60m -skip '^TestSoak$$|$(RECEIVERS)' ./test; \
	}; build/summary total

test-long: export PILOTLIGHT_LONG = 1
test-long: ## the same with full lengths
	@$(MAKE) --no-print-directory test FUZZTIME=2m SHORT=

test-vm: ## the tests on other kernels, in emulated machines; KERNEL=6.1 ARCH=arm64 RUN=TestX choose
	@test/setup.sh
	@go run ./test/vm -table write -kernel '$(KERNEL)' -arch '$(ARCH)' -run '$(RUN)'

test-fast: build/summary ## vet and unit tests, in less than two minutes
	@rm -rf build/test
	@$(STAGE) vet go vet ./...; \
		$(STAGE) unit go test -json -short $(PACKAGES) $(HOUSE); \
		build/summary total

soak: ## run the agent for MINUTES=10 on processes and mappings that come and go; stop, kill and restart it (root)
	@PILOTLIGHT_SOAK_MINUTES=$(MINUTES) go test -count=1 -v -timeout 0 -run '^TestSoak$$' ./test

bench: build ## measure what sampling costs, beside perf and bpftrace, how whole stacks are, what loading costs on other kernels, and what the history costs (root)
	@test/setup.sh bench
	@go run ./test/bench $(ARGS)
	@echo
	@go run ./test/vm -loads
	@echo
	@GOMAXPROCS=1 go test -run '^$$' -bench 'BusyHost|Layout' -benchtime 3x ./exporter/store
	@go test -run '^$$' -bench Recording -benchtime 1x -timeout 20m ./exporter/store
	@go test -run '^$$' -bench Query -benchtime 3x ./exporter/store

bench-page: ## measure what drawing 200,000 nodes costs, in Debian's Chromium
	@test/setup.sh
	@test/browser/setup.sh
	@node test/browser/flame.mjs

pictures: ## take those of docs/page.md again, in three minutes (Debian, root)
	@test/setup.sh
	@test/browser/setup.sh
	@node test/browser/pictures.mjs docs

lint: ## vet, staticcheck, format; shellcheck and clang-format where they are there
	@files=$$(gofmt -l .) && { [ -z "$$files" ] || { echo "not formatted, run make format: $$files"; exit 1; }; }
	@go vet ./... && go vet -tags vm ./test ./test/rights
	@$(STATICCHECK) ./... && $(STATICCHECK) -tags vm ./test ./test/rights
	@staticcheck=$$($(subst go tool,go tool -n,$(STATICCHECK))) && for module in test/engines test/openapi test/otlp test/parca test/pyroscope test/collector; do \
		(cd $$module && go vet ./... && $$staticcheck ./...) || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck $(SHELL_SOURCES); fi
	@if command -v clang-format-19 >/dev/null; then clang-format-19 --dry-run -Werror $(BPF_SOURCES); fi

format: ## format Go, and BPF C where clang-format-19 is there
	@gofmt -w .
	@if command -v clang-format-19 >/dev/null; then clang-format-19 -i $(BPF_SOURCES); fi

clean: ## remove what was built
	@rm -rf bin build
