# luksmith: build, test, install. `make help` lists the targets.
PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go
BUILD   ?= build
# What is missing gets installed from Debian's packages; INSTALL_DEPS=no forbids it.
INSTALL_DEPS ?= yes

COMMANDS = cryptenroll cryptsetup-unit
# Folders of the helper programs. Those with a C library cannot be listed without cgo.
HELPERS  = $(patsubst %/,%,$(wildcard tokens/*/luksmith-*/ internal/*/luksmith-*/))
# runtime/secret erases registers, stack and heap behind the secrets, where the toolchain has it.
EXPERIMENT := $(shell GOEXPERIMENT=runtimesecret $(GO) version >/dev/null 2>&1 && echo runtimesecret)
# cryptsetup-unit has to be small, because it is read at every boot. Inlining in code that
# runs once costs a fifth of a megabyte and saves nothing that can be measured; what is
# computed in loops is in luks2/internal and in the libraries.
SMALL   = -gcflags=luksmith/...=-l -gcflags=luksmith/luks2/internal/...= -gcflags=github.com/...=-l \
	-gcflags=encoding/...=-l -gcflags=encoding/binary= -gcflags=golang.org/x/sys/...=-l \
	-gcflags=crypto/internal/fips140/ecdsa=-l -gcflags=crypto/internal/fips140/nistec/fiat=-l -gcflags=crypto/internal/fips140/rsa=-l -gcflags=crypto/internal/fips140/bigmod=-l \
	-gcflags=fmt=-l -gcflags=math/big=-l -gcflags=reflect=-l \
	-gcflags=strings=-l -gcflags=sync=-l -gcflags=internal/sync=-l -gcflags=syscall=-l -gcflags=time=-l
# Errors in package variables are made by the compiler if it may inline errors.New, else at
# each start. It may in these packages, which hardly grow by it, as in bytes, context and others.
READY   = $(addprefix luksmith/,tokens tokens/recovery/qr tokens/tpm2/bootrecord tokens/tpm2/bootchain \
	$(addprefix tokens/tpm2/bootchain/,bls efi host pe) internal/cli internal/contest internal/gpt internal/helper \
	internal/probe internal/varlinkapi luks2/argon2id luks2/secret) \
	github.com/anatol/... encoding/asn1 encoding/hex
GOBUILD = GOEXPERIMENT=$(EXPERIMENT) $(GO) build -trimpath -buildvcs=false $(SMALL) $(READY:%=-gcflags=%=) -ldflags '-s -w -buildid= -funcalign=4'

.PHONY: all build commands helpers deps test check lint race foreign fuzz bench size e2e demo install uninstall packages dist clean help

all: build

build: commands helpers ## the two static commands and the helper programs, into build/

commands: ## only the two commands
	@for c in $(COMMANDS); do [ ! -d $$c ] || { echo "building $$c"; CGO_ENABLED=0 $(GOBUILD) -o $(BUILD)/$$c ./$$c || exit 1; }; done

helpers: ## only the helper programs
	@for h in $(HELPERS); do echo "building $${h##*/}"; \
		if CGO_ENABLED=0 $(GO) list ./$$h >/dev/null 2>&1; then cgo=0; else cgo=1; fi; \
		CGO_ENABLED=$$cgo $(GOBUILD) -o $(BUILD)/$${h##*/} ./$$h || exit 1; done

deps: ## install what building and testing need (Debian packages)
	@[ "$(INSTALL_DEPS)" = no ] || sh .ci/install-deps

test: deps build ## all tests; what is missing is skipped with its reason, or fails with REQUIRE_ALL=1
	CGO_ENABLED=0 $(GO) build ./... && CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=1 $(GO) vet ./...
	CGO_ENABLED=0 GOARCH=386 $(GO) build ./...
	[ -z "$$REQUIRE_ALL" ] || sh .ci/fuzz 10s
	$(GO) tool gotestsum --format pkgname -- -timeout 40m ./...

check: test lint race foreign ## test, lint, race detector, other processors and 30 s of every fuzz target
	sh .ci/fuzz 30s

lint: ## gofmt, staticcheck, functions that nothing calls, mandoc
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these'; exit 1; }
	$(GO) tool staticcheck ./...
	@out=$$($(GO) tool deadcode -test ./...) && [ -z "$$out" ] || { echo "$$out"; exit 1; }
	@for m in $(wildcard docs/*.[1-8]); do mandoc -T lint -W warning $$m || exit 1; done

race: ## the race detector over the short tests
	CGO_ENABLED=1 GORACE=atexit_sleep_ms=0 $(GO) test -race -short -timeout 40m ./...

foreign: deps ## builds, unit tests and a round with a volume for 386, arm, arm64, riscv64 and s390x
	sh .ci/foreign

fuzz: ## an hour, divided between the fuzz targets
	sh .ci/fuzz hour

bench: build ## what is promised about speed and weight, measured beside the peers, as one table
	$(GO) run ./internal/bench -raw $(BUILD)/bench

size: build ## what the boot helper and each part of it weigh, and what an initrd gains
	@CGO_ENABLED=0 $(subst -s -w ,,$(GOBUILD)) -o $(BUILD)/cryptsetup-unit.symbols ./cryptsetup-unit
	@GO='$(GO)' sh .ci/size $(BUILD)

# make e2e RUN=TestDebian13/dracut: a part of it. RESUME=yes: without the boots of Debian
# that have passed with the same package, which build/e2e-passed lists.
e2e: build packages ## boots QEMU, Debian with the packages installed too, and whole tables: hours
	@[ "$(INSTALL_DEPS)" = no ] || sh .ci/install-deps e2e
	LUKSMITH_E2E=$(if $(RESUME),resume,1) $(GO) test -v -count=1 -timeout 12h $(if $(RUN),-run '$(RUN)') ./e2e/... ./cryptenroll

demo: ## the main job on an image file and a software TPM
	@[ "$(INSTALL_DEPS)" = no ] || sh .ci/install-deps demo
	@$(MAKE) --no-print-directory commands
	@sh .ci/demo

VERSION = $(shell sed -n 's/^const Version = "\(.*\)"/\1/p' internal/version/version.go)
BINDIR  = $(DESTDIR)$(PREFIX)/bin
LIBDIR  = $(DESTDIR)$(PREFIX)/lib/luksmith
MANDIR  = $(DESTDIR)$(PREFIX)/share/man

install: ## what `make build` made, below DESTDIR and PREFIX
	install -d $(BINDIR) $(LIBDIR)
	install -m 755 $(addprefix $(BUILD)/,$(COMMANDS)) $(BINDIR)
	install -m 755 $(addprefix $(BUILD)/,$(notdir $(HELPERS))) $(LIBDIR)
	for m in docs/*.[1-8]; do install -D -m 644 $$m $(MANDIR)/man$${m##*.}/$${m##*/}; done

uninstall: ## removes what install put there
	cd $(BINDIR) && rm -f $(COMMANDS)
	rm -rf $(LIBDIR)
	for m in docs/*.[1-8]; do rm -f $(MANDIR)/man$${m##*.}/$${m##*/}; done

# nfpm is run and not required: it would bring 40 modules into go.mod.
NFPM_VERSION = v2.45.2
packages: build ## deb, rpm, Arch and apk packages, into build/packages/
	@GO='$(GO)' NFPM_VERSION=$(NFPM_VERSION) sh internal/packages/build $(FORMATS)

dist: ## the committed sources as luksmith-VERSION.tar.gz
	git archive --format=tar.gz --prefix=luksmith-$(VERSION)/ -o luksmith-$(VERSION).tar.gz HEAD

clean: ## removes build/ and archives
	rm -rf $(BUILD) luksmith-*.tar.gz

help: ## prints this
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' Makefile | expand -t 12
