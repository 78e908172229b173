# The targets and what they are for: make help

VERSION ?= $(shell scripts/version)
GO      ?= go
BIN     := bin/flotilla
LDFLAGS := -s -w -X flotilla/internal/applet.Version=$(VERSION)
export CGO_ENABLED := 0

# What the lab tests and the demonstration use, as command:package.
LAB_NEEDS  := systemd-nspawn:systemd-container dbus-daemon:dbus ip:iproute2 nft:nftables \
              busybox:busybox-static dockerd:docker.io pgrep:procps \
              curl:curl script:bsdutils /usr/sbin/sshd:openssh-server
TEST_NEEDS := $(LAB_NEEDS) /usr/bin/etcd:etcd-server /usr/bin/etcdctl:etcd-client \
              /usr/share/pam-configs/systemd:libpam-systemd \
              dpkg-deb:dpkg lintian:lintian rpm:rpm

.PHONY: check
check: fmt vet staticcheck fast ## the quick check before a commit (default)

.PHONY: build
build: ## the static binary, in bin/, with a link for every classic name
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/flotilla
	@for name in $$($(BIN) __links); do ln -sf flotilla bin/$$name; done

.PHONY: fmt
fmt:
	@out=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	  [ -z "$$out" ] || { echo "gofmt would change (make fix):"; echo "$$out"; exit 1; }

.PHONY: fix
fix: ## format, tidy, and write the list of linked packages anew
	gofmt -w $$(git ls-files --cached --others --exclude-standard '*.go')
	$(GO) mod tidy
	$(GO) test ./internal/archtest -run TestLinkedPackages -update

.PHONY: vet
vet:
	$(GO) vet ./...

.PHONY: staticcheck
staticcheck:
	$(GO) tool staticcheck ./...

# Packages whose tests start daemons, machines or many processes: seconds each.
SLOW := internal/(systemd|supervisor|fleet/(fleetd|fleetctl|registry)|kv/(member|mvcc|v2http|etcdcmd|etcdctl|proxy|discovery|backup|gate)|reboot/(lock|locksmithctl|locksmithd|fleetlock))|lab|cmd/flotilla

.PHONY: fast
fast:
	$(GO) test -short $$($(GO) list ./... | grep -vE '^flotilla/($(SLOW))$$')

.PHONY: test
test: needs fmt vet staticcheck build ## everything: all tests, also in the lab (root), and the fuzz targets' corpora
	$(GO) test -count=1 -timeout 25m ./internal/... ./client/... ./api/... ./cmd/... ./dist/...
	$(GO) test -count=1 -timeout 40m -v ./lab/...

.PHONY: needs
needs:
	@scripts/need $(TEST_NEEDS)

.PHONY: demo
demo: ## three machines, a unit, a power cut: the whole story in some 35 s
	@scripts/need $(LAB_NEEDS)
	@$(MAKE) --no-print-directory build
	@$(BIN) lab demo

.PHONY: bench
bench: build bench-store ## the figures that the documents quote (root: lab machines)
	@scripts/need $(LAB_NEEDS) /usr/bin/etcd:etcd-server
	$(GO) run ./lab/bench $(BENCH_ARGS)

.PHONY: bench-store
bench-store: build ## the store beside Debian's etcd 3.4, some seven minutes
	@scripts/need /usr/bin/etcd:etcd-server
	$(GO) run ./lab/bench/store $(BENCH_STORE_ARGS)

.PHONY: sim
sim: ## 500 machines and 10,000 units in one process, measured; about two minutes
	$(GO) run ./lab/sim $(SIM_ARGS)

SOAKTIME ?= 10m
SOAKSEED ?= 1
.PHONY: soak
soak: build ## faults on three lab machines for SOAKTIME (10m), judged (root)
	@scripts/need $(LAB_NEEDS)
	$(GO) run ./lab/faults -for $(SOAKTIME) -seed $(SOAKSEED)

.PHONY: promises
promises: ## the lab scenarios that "make test" shortens, whole: a cut of two minutes, a hundred changes, six machines (root)
	@scripts/need $(LAB_NEEDS)
	$(GO) test -count=1 -timeout 40m -v -run 'TestCutOff$$|TestRoll$$|TestRebootsStop$$' ./lab -args -lab.cut=2m -lab.rolls=100 -lab.reboots=6

.PHONY: oracle
oracle: ## 100,000 random requests against each judge of the v2 API, and 20,000 against a running etcd 3.4
	@scripts/need /usr/bin/etcd:etcd-server
	$(GO) test -count=1 -timeout 60m -v -run 'TestOracle$$' ./internal/kv/v2 ./internal/kv/mvcc -args -oracle.requests=100000
	$(GO) test -count=1 -timeout 60m -v -run 'TestLive$$' ./internal/kv/v2http -args -live.requests=20000

FUZZTIME ?= 60s
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (60s) each
	@set -e; for f in $$(grep -rl --include='*_test.go' '^func Fuzz' internal client api 2>/dev/null); do \
	  for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$f); do \
	    echo "== $$name in $$(dirname $$f)"; \
	    $(GO) test ./$$(dirname $$f) -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME); \
	  done; done

PACKAGES ?= deb-amd64 deb-arm64 rpm-amd64 rpm-arm64
.PHONY: package
package: ## deb and rpm for amd64 and arm64, in bin/packages
	VERSION='$(VERSION)' GO='$(GO)' scripts/package bin/packages $(PACKAGES)

PREFIX ?= /usr/local
.PHONY: install
install: build ## the binary, its links, manuals, units and completion, below PREFIX
	VERSION='$(VERSION)' GO='$(GO)' scripts/install '$(BIN)' '$(DESTDIR)' '$(PREFIX)'

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
