# Build: the SQL parser is PostgreSQL's own C code, so libclang and a C compiler are needed here, and here only.
FROM rust:1-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Function names are enough for a backtrace: what only debuggers want is four fifths of the file.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY benches benches
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin pgbraid \
    && cp target/release/pgbraid /usr/local/bin/pgbraid

# Debian, because text is merged in the order of the C library's locales: the same release as the shards' is best.
FROM debian:bookworm-slim
# Those that the shards' text columns are ordered by: docker build --build-arg LOCALES="en_US de_DE".
ARG LOCALES=en_US
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates locales \
    && for locale in $LOCALES; do localedef -i "$locale" -f UTF-8 "$locale.UTF-8" || exit 1; done \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /usr/share/i18n \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin pgbraid
COPY --from=build /usr/local/bin/pgbraid /usr/local/bin/pgbraid
COPY config/pgbraid.toml /usr/share/doc/pgbraid/pgbraid.toml
# It writes no file: run it with a read-only root. Signals reach it although it is process 1, and it starts no process that would have to
# be reaped, so there is no init in between.
USER 10001:10001
# Reachable from outside the container; /livez, /readyz and /metrics too, for the orchestrator.
ENV PGBRAID_CONFIG=/etc/pgbraid/pgbraid.toml \
    PGBRAID_SERVER_LISTEN=0.0.0.0:6432 \
    PGBRAID_SERVER_HTTP=0.0.0.0:9632
EXPOSE 6432 9632
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s \
    CMD ["pgbraid", "health", "--address", "127.0.0.1:9632"]
ENTRYPOINT ["pgbraid"]
CMD ["serve"]
