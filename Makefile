# Needs Go 1.26, git, make, and for the tests a C compiler (the race detector).

MODULES := . examples compat bench
PROGRAMS := gateway catalog inventory pricing orders mailer

# What follows can be given: make soak STILE_ROUNDS=10000, make demo ARGS=--json
STILE_ROUNDS ?= 1000
FUZZTIME ?= 20s
ARGS ?=

# What takes long and does not depend on settings of the runtime.
UNSET := 'EmptyParts|IdleMemory|ThousandConnections|NonBlockingStuckClient|ResolverMoves|RefuseFlood|MetadataMemory'

# Not SA1019: what grpc-go has deprecated, Stile must still honour.
CHECKS := inherit,-SA1019

say = @printf '\n== %s\n'
each = @set -e; for m in $(MODULES); do echo "-- $$m"; (cd $$m && $(1)); done

.DEFAULT_GOAL := help
.PHONY: help build web demo test test-web check bench bench-policy bench-queue bench-reporting soak-queue fuzz soak
.PHONY: test-format test-vet test-cross test-race test-load test-settings test-deaths test-modules test-examples test-postgres test-compat test-bench test-demo
.PHONY: check-tidy check-static compiler

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/stile and the shop's six programs, bin/shop; with the dashboard, if Node is there
	@if ! scripts/has-node.sh; then echo "There is no Node 20.19 with npm here: bin/stile is built without the hub's dashboard."; \
	else $(MAKE) --no-print-directory web || echo "The hub's dashboard could not be built: bin/stile has the one of before, or none."; fi
	$(say) "building bin/stile and the shop (the first time, Go downloads what they need)"
	go build -o bin/stile ./cmd/stile
	@mkdir -p bin/shop
	cd examples && go build -o ../bin/shop/ $(PROGRAMS:%=./shop/%)

# What the dashboard is made of; it is made again only if one of them is newer.
WEB := $(shell find hub/web/src hub/web/public -type f) $(addprefix hub/web/,package.json package-lock.json vite.config.ts tsconfig.json index.html)

web: hub/web/dist/index.html ## build the hub's dashboard, which go build embeds; needs Node 20.19 and npm

hub/web/dist/index.html: hub/web/node_modules/.package-lock.json $(WEB)
	$(say) "building the dashboard"
	cd hub/web && npm run --silent build

hub/web/node_modules/.package-lock.json: hub/web/package-lock.json
	$(say) "downloading what the dashboard is built with"
	cd hub/web && npm install --no-save --no-audit --no-fund # not ci, which wants optional packages for other systems, too
	@touch $@

demo: build ## run six services over grpc-go, move them to Stile under load, compare
	bin/stile demo $(ARGS)

test: test-format test-vet test-cross test-race test-load test-settings test-deaths test-modules test-demo ## everything that needs no more than 15 minutes, with -race
	$(say) "all tests passed"

test-format: ## see that all files are formatted
	$(say) "format"
	@list=$$(gofmt -l .); if [ -n "$$list" ]; then echo "not formatted, run gofmt -w:"; echo "$$list"; exit 1; fi

test-vet: ## go vet in each module
	$(say) "vet"
	$(call each,go vet ./...)
	go vet -tags stile_deaths . ./transport/shm

test-cross: ## build for macOS and Windows, and vet there
	$(say) "build for other systems"
	@set -e; for os in darwin windows; do echo "-- $$os"; GOOS=$$os go build ./...; GOOS=$$os go vet ./...; done

test-race: compiler ## test this module with -race; soak and soak-queue have the full counts of what is killed
	$(say) "test"
	@scripts/can-mount.sh || { echo "-- no power cuts are tested here, nor full disks: that takes root and loop devices"; export QUEUE_CUTS=0; }; \
	CGO_ENABLED=1 go test -race -short -p 3 -timeout 15m ./... # one more at once than processors: many tests wait

test-settings: ## test with one and with many threads, with the collector always and never at work
	$(say) "other settings of the Go runtime"
	GOMAXPROCS=1 GOGC=10 STILE_ROUNDS=20 go test -count=1 -timeout 10m -skip $(UNSET) . ./transport/shm
	GOMAXPROCS=8 GOGC=off STILE_ROUNDS=20 go test -count=1 -timeout 10m -skip $(UNSET) . ./transport/shm

test-deaths: compiler ## kill a process before and after each of its stores to shared memory
	$(say) "deaths at each store"
	CGO_ENABLED=1 STILE_ROUNDS=100 go test -race -timeout 10m -tags stile_deaths -run DiesAtStore .

test-load: ## what -race makes too slow or too large: policies under load, big files, memory of connections
	$(say) "load, without -race"
	go test -count=1 -timeout 10m -run 'Load|NotTwice|RetriesLikeGRPC|Adapt' ./policy ./policy/control
	go test -count=1 -timeout 10m -run 'BigFile|EndlessValue' ./routemap/tracefile
	go test -count=1 -timeout 10m -run Churn . # which looks at memory, that -race makes more of

test-modules: ## test the other modules, two at once
	@$(MAKE) --no-print-directory -j 2 $(if $(filter output-sync,$(.FEATURES)),-O) test-examples test-compat test-postgres test-bench

test-examples: compiler ## test the shop with -race
	$(say) "test the shop"
	cd examples && CGO_ENABLED=1 QUEUE_KILLS=2 go test -race -short -timeout 10m ./...

test-postgres: compiler ## test inbox and outbox with a PostgreSQL server, which it starts
	$(say) "test with PostgreSQL"
	cd examples && CGO_ENABLED=1 ../scripts/postgres.sh go test -race -count=1 -timeout 10m -run '/PostgreSQL' ./databases

test-compat: compiler ## compare with grpc-go, with -race
	$(say) "test compatibility with grpc-go"
	cd compat && CGO_ENABLED=1 go test -race -timeout 15m ./...

test-bench: compiler ## test the benchmarks' own correctness, with -race
	$(say) "test the benchmarks"
	cd bench && CGO_ENABLED=1 go test -race -timeout 10m ./...

test-demo: build ## a short run of the demo
	$(say) "demo"
	bin/stile demo --duration 6s >bin/demo.txt; code=$$?; cat bin/demo.txt; exit $$code
	@for found in 'n+1  gateway → pricing' 'carried  orders → mailer' 'serial  orders → pricing' 'unused  orders → mailer'; do \
		grep -q "^$$found" bin/demo.txt || { echo "the hub has not found what is wrong with the shop: $$found"; exit 1; }; done

test-web: web ## drive a browser (Chromium) through the dashboard, also of a hub that the shop feeds; pictures are in hub/web/shots
	$(say) "test the dashboard"
	go build -o bin/stile ./cmd/stile
	@mkdir -p bin/shop
	cd examples && go build -o ../bin/shop/ $(PROGRAMS:%=./shop/%)
	cd hub/web && node --test --test-concurrency 2 --test-reporter spec --test-reporter-destination stdout test/run.mjs test/queues.mjs test/shop.mjs

check: test check-tidy check-static ## test, go mod tidy -diff and staticcheck

check-tidy: ## see that go.mod and go.sum are tidy in each module
	$(say) "tidy"
	$(call each,go mod tidy -diff)

check-static: ## staticcheck in each module
	$(say) "staticcheck"
	go build -modfile=tools.mod -o bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	$(call each,"$(CURDIR)/bin/staticcheck" -checks $(CHECKS) ./...)

bench: ## compare with other ways of calling, about 12 minutes; let nothing else run
	cd bench && go run . $(ARGS)

bench-policy: ## what a policy costs a call, and what it saves, about 4 minutes; let nothing else run
	$(say) "the chain alone, before a channel that does nothing"
	go test -run '^$$' -bench Chain -count 5 ./policy
	$(say) "state machines and the near cache"
	go test -run '^$$' -bench . ./policy/control ./policy/internal/near
	$(say) "calls in turns: none, a deadline by package context, and policies"
	go test -run '^$$' -bench BenchmarkPolicy -benchtime 300x -count 3 .
	$(say) "a call that a server sheds"
	go test -run '^$$' -bench BenchmarkShed -benchtime 20x -count 3 .
	$(say) "under load, in virtual time"
	go test -count=1 -run 'Load|Amplification|FourHops' -v ./policy

bench-queue: ## compare queues: publishing, consuming, latency; about 2 minutes; let nothing else run
	cd bench && go run ./queue $(ARGS)
	$(say) "what poison does to other messages"
	go test -run '^$$' -bench Poison -benchtime 2000x -count 3 ./queue

bench-reporting: build ## what telling a hub costs the shop, about 9 minutes; let nothing else run
	go test -run '^$$' -bench Reporting -benchtime 12x -timeout 20m ./cmd/stile/internal/demo

soak-queue: ## cut the power 10 times and kill 30 times, while messages are published and handled; about 15 minutes
	QUEUE_CUTS=10 QUEUE_KILLS=30 go test -count=1 -timeout 20m -run 'PowerCut|Killed|TestDelays$$' -v ./queue
	cd examples && QUEUE_MESSAGES=100000 QUEUE_KILLS=30 go test -count=1 -timeout 20m -v ./billing
	cd examples && QUEUE_KILLS=30 go test -count=1 -timeout 20m -run Killed -v ./databases ./shop/shoptest
	cd examples && QUEUE_MESSAGES=100000 QUEUE_KILLS=10 go test -count=1 -timeout 20m -v ./clustertest

fuzz: ## run each fuzz target for FUZZTIME
	@set -e; for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

soak: compiler ## the fault tests with STILE_ROUNDS rounds, and the shop's switch again and again
	$(say) "$(STILE_ROUNDS) rounds of each fault"
	CGO_ENABLED=1 STILE_ROUNDS=$(STILE_ROUNDS) go test -race -count=1 -timeout 4h . ./transport/...
	CGO_ENABLED=1 STILE_ROUNDS=$(STILE_ROUNDS) go test -race -count=1 -timeout 4h -tags stile_deaths -run DiesAtStore .
	$(say) "the shop's switch, 20 times"
	cd examples && CGO_ENABLED=1 go test -race -count=20 -timeout 1h -run 'TestSwitch|TestServiceKilled' ./shop/shoptest

compiler:
	@command -v "$${CC:-cc}" >/dev/null || command -v gcc >/dev/null || \
		{ echo "The race detector needs a C compiler: install gcc or clang, or set CC." >&2; exit 1; }
