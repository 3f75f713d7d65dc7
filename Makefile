# make prints what there is; every target is one command that can be run by hand.
.DEFAULT_GOAL := help
SEEDS ?= 2000
FUZZTIME ?= 10s

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

build: ## build the binaries into bin/
	go build -trimpath -o bin/ ./cmd/...

test: ## all tests, as in the README
	go test ./...

race: ## all tests with the race detector
	go test -race ./internal/... ./client/... ./sim

lint: ## golangci-lint, pinned in tools/go.mod
	./scripts/lint

fuzz: ## every fuzz target for FUZZTIME
	./scripts/fuzz $(FUZZTIME)

sim: ## SEEDS simulated clusters with faults
	go test ./sim -run 'TestSeeds|TestOneSeed|TestPlanted' -seeds $(SEEDS) -timeout 2h -v | grep -v -e '=== RUN' -e '--- PASS: TestSeeds/'

chaos: ## real processes, kill -9, longer than in go test
	go test ./test/cluster -count=1 -run 'Chaos|^Test(Split|Witness|WatchThroughSplit)$$' -chaos 20 -timeout 1h -v

chaos-transactions: ## 100,000 transactions under kills, pauses and partitions; as root
	./scripts/chaos-transactions $(ARGS)

bench: ## benchmarks of the packages
	go test -run '^$$' -bench . -benchmem ./internal/... ./client/...

bench-peers: ## kvstore against etcd, three nodes each (docs/performance.md)
	./scripts/bench-peers $(ARGS)

bench-transactions: ## transactions in 1, 2 and 5 groups against etcd and beside puts
	./scripts/bench-transactions $(ARGS)

bench-nodes: ## how throughput grows from 3 to 7 nodes; as root
	./scripts/bench-nodes $(ARGS)

bench-depth: ## many clients, large values beside small ones
	./scripts/bench-depth $(ARGS)

bench-growth: ## growing data, restarts, overwriting
	./scripts/bench-growth $(ARGS)

bench-latency: ## latency at a moderate rate against S3.17
	./scripts/bench-latency $(ARGS)

bench-smoke: ## the form of what these three write, in a minute
	./scripts/bench-smoke

demo-grow: ## a cluster grows from one node to seven and shrinks again, under load
	./scripts/demo-grow

profile-put: ## where the CPU of a put and a get goes
	./scripts/profile-put $(ARGS)

proto: ## regenerate api/ from its .proto files
	cd tools/protogen && go run . ../../api kvstore/v1/kvstore.proto kvstore/v1/lease.proto kvstore/v1/peer.proto

cross: ## build for all supported systems; .ci/run only type-checks for them
	./scripts/cross build

cluster: ## start a three-node cluster on loopback
	go run ./cmd/kvstore dev

cover: ## coverage of the packages
	go test -coverprofile=cover.out ./internal/... ./client/... && go tool cover -func=cover.out | tail -1

.PHONY: help build test race lint fuzz sim chaos chaos-transactions bench bench-peers bench-transactions bench-nodes bench-depth bench-growth bench-latency bench-smoke profile-put demo-grow proto cross cluster cover
