# make test   everything a change must pass; installs what it needs from Debian
# make demo   the demo server
# make bench  ourselves beside Dovecot and Postfix; rewrites docs/benchmarks.md
SHELL := /bin/bash
GO ?= go

.PHONY: test deps lint unit e2e demo build fuzz bench

test: deps lint unit e2e

# The programs that the end-to-end tests drive. Debian's names; nothing is installed that is there already.
PACKAGES := swaks isync msmtp curl mutt thunderbird python3 openssl libnet-ssleay-perl libio-socket-ssl-perl libauthen-sasl-perl \
	libdigest-hmac-perl gcc libc6-dev postfix libgnutls-dane0 libidn12 libidn2-0 libpcre2-8-0 libdb5.3 libnsl2
deps:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -qq; \
		echo postfix postfix/main_mailer_type select No configuration | $$sudo debconf-set-selections; \
		DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

# Exim's package conflicts with Postfix's, so it is only unpacked, with the user that the binary insists on.
EXIM := bin/peers/usr/sbin/exim4
$(EXIM):
	mkdir -p bin/peers
	cd bin/peers && { apt-get download -qq exim4-daemon-light 2>/dev/null || { apt-get update -qq && apt-get download -qq exim4-daemon-light; }; } && dpkg-deb -x exim4-daemon-light_*.deb .
	if [ "$$(id -u)" = 0 ]; then id Debian-exim >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin Debian-exim; fi

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

# The race detector needs cgo; what is shipped does not: build proves it. e2e is left to the next step.
unit: build
	CGO_ENABLED=1 $(GO) test -race -timeout 15m $$($(GO) list ./... | grep -v '/e2e$$')

e2e: deps $(EXIM)
	MAILSRV_E2E=require CGO_ENABLED=1 $(GO) test -count=1 -timeout 15m -v ./e2e | grep --line-buffered -v -E '^=== (RUN|PAUSE|CONT|NAME)'; exit $${PIPESTATUS[0]}

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.release=$(VERSION)' -o bin/ ./cmd/...

# Peers come from Debian. Services that the packages start are none of our business; the comparison starts its own.
BENCH_PACKAGES := dovecot-imapd dovecot-lmtpd postfix strace
bench: PACKAGES := $(BENCH_PACKAGES)
bench: deps
	$(GO) run ./cmd/mailbench compare -config bench/peers.toml -pairs 2 \
		-markdown docs/benchmarks.md -svg docs/benchmarks.svg -json bench/last.json

demo:
	$(GO) run ./cmd/mailsrv -config testdata/demo.toml

# A minute for each fuzz target.
fuzz:
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime 60s -fuzzminimizetime 1x $$pkg || exit 1; \
		done; \
	done
