# make demo   the whole thing on this machine, with throwaway PostgreSQL servers
# make test   all tests
# make soak   random statements on one server and through pgbraid, for as long as asked: ARGS="seconds=600 seed=7 count=20000"
# make bench  what a row and a statement cost
# make lint   formatting, lints, and the files under deploy/

CARGO ?= cargo
# Extra arguments: make demo ARGS="--shards 4 --once", make test ARGS=plans
ARGS ?=

.PHONY: demo test soak bench lint deps deps-tests

deps:
	@./deploy/install-deps.sh

deps-tests:
	@./deploy/install-deps.sh --tests

demo: deps
	$(CARGO) run --release --locked -- demo $(ARGS)

# nextest runs each test in a process of its own, all at once; plain cargo test does as well, slower. The tests share servers,
# which are stopped behind the last one: only then is everything over.
test: deps-tests
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --locked $(ARGS); \
	else \
	  $(CARGO) test --locked $(ARGS); \
	fi; status=$$?; \
	for i in $$(seq 150); do test -e target/tmp/test-servers || break; sleep 0.1; done; \
	exit $$status

# Exits with an error when any answer differs; prints how many statements were refused, and why.
soak: deps
	PGBRAID_SOAK="$(ARGS)" $(CARGO) test --locked --test integration -- --ignored --exact random::soak --nocapture

bench: deps
	$(CARGO) bench --locked --bench proxy -- $(ARGS)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) clippy --locked --features otlp -- -D warnings
	@./deploy/lint.sh
