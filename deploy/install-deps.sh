#!/bin/bash
# Installs what building, testing and the demo need, where it is missing: a C compiler and libclang (the SQL parser is
# PostgreSQL's own, in C), PostgreSQL's server programs (tests and the demo start throwaway servers), the locale en_US.UTF-8
# (ordering text is tested under it), openssl (tests make certificates). Does so only as root on Debian or Ubuntu; elsewhere it says exactly what is missing.
# With --tests also a browser: the live page is tested in Chromium. Nothing else needs it, and without it only those tests are left out.
set -eu
export DEBIAN_FRONTEND=noninteractive

missing=()
need() { case " ${missing[*]-} " in *" $1 "*) ;; *) missing+=("$1") ;; esac; }

has_program() { command -v "$1" >/dev/null 2>&1; }

has_postgres() {
  local dir
  for dir in ${PATH//:/ } /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin /opt/homebrew/opt/postgresql*/bin; do
    [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && return 0
  done
  return 1
}

has_libclang() {
  local file
  [ -n "${LIBCLANG_PATH:-}" ] && return 0
  for file in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib*/libclang*.so* /usr/lib/*/libclang*.so* /Library/Developer/CommandLineTools/usr/lib/libclang.dylib; do
    # The C++ interface is another library, and often there without the one the parser's build loads.
    case "$file" in */libclang-cpp*) continue ;; esac
    [ -e "$file" ] && return 0
  done
  return 1
}

# Captured first: under pipefail an early exit of grep would look like a failure of the pipe.
locales=$(locale -a 2>/dev/null || true)
has_locale() { grep -qiE '^en_US\.utf-?8$' <<<"$locales"; }

has_program cc || need gcc
has_program openssl || need openssl
[ "$(uname)" != Linux ] || [ -e /usr/include/stdlib.h ] || need libc6-dev
has_libclang || need libclang-dev
has_postgres || need postgresql
has_locale || need locales

if ! has_program cargo; then
  echo "cargo is missing: install Rust 1.89 or newer, for example from https://rustup.rs" >&2
  exit 1
fi

install() { apt-get install -q -y --no-install-recommends "$@" >&2; }

# 400 MB on disk; a quarter of a minute where the archive is near.
browser() {
  local program
  [ "${1-}" = --tests ] || return 0
  for program in chromium chromium-browser google-chrome google-chrome-stable; do
    has_program "$program" && has_program chromedriver && return 0
  done
  if has_program apt-get && [ "$(id -u)" -eq 0 ]; then
    echo "installing: chromium chromium-driver" >&2
    [ -n "${updated-}" ] || apt-get update -q >&2
    install chromium chromium-driver && return 0
  fi
  echo "the live page's browser tests are left out: they need chromium and chromium-driver" >&2
}

if [ ${#missing[@]} -eq 0 ]; then
  browser "$@"
  exit 0
fi

if ! has_program apt-get || [ "$(id -u)" -ne 0 ]; then
  {
    echo "missing: ${missing[*]}"
    if has_program apt-get; then
      echo "install with: sudo apt-get install ${missing[*]}"
      has_locale || echo "        then: sudo localedef -i en_US -f UTF-8 en_US.UTF-8"
    else
      echo "(Debian's package names; PostgreSQL's server programs, libclang, a C compiler, openssl, the locale en_US.UTF-8)"
    fi
  } >&2
  exit 1
fi

echo "installing: ${missing[*]}" >&2
apt-get update -q >&2
updated=yes
case " ${missing[*]} " in
*" postgresql "*)
  # The package would start a server of its own on port 5432; nobody asked for that one.
  install postgresql-common
  conf=/etc/postgresql-common/createcluster.conf
  cp "$conf" "$conf.before-pgbraid"
  echo 'create_main_cluster = false' >>"$conf"
  status=0; install "${missing[@]}" || status=$?
  mv "$conf.before-pgbraid" "$conf"
  [ "$status" -eq 0 ] || exit "$status" ;;
*) install "${missing[@]}" ;;
esac
has_locale || localedef -i en_US -f UTF-8 en_US.UTF-8
browser "$@"
