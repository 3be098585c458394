#!/bin/bash
# Checks the files for deployment with real tools: those of deploy/lint-tools.txt, which it brings into target/lint-tools the first time,
# and systemd's. Says which ones it went without. Once they are there, nothing is fetched.
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0
skip() { echo "skipped: $1 ($2)"; }
run() { local what=$1; shift; if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; failed=1; fi; }
# What is said only matters where it fails. Called by way of run.
# shellcheck disable=SC2329
quiet() { "$@" >"$scratch/said" || { cat "$scratch/said"; return 1; }; }
has() { command -v "$1" >/dev/null 2>&1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if has python3; then
  # A machine that reaches no index checks with what it has.
  if timeout 300 deploy/lint-tools.sh target/lint-tools 2>"$scratch/tools"; then
    PATH="$PWD/target/lint-tools/bin:$PATH"
  else
    skip "the tools of deploy/lint-tools.txt" "$(tail -n 1 "$scratch/tools")"
  fi
fi

if has systemd-analyze; then
  # The units are checked with a program that exists in place of the installed one.
  for unit in deploy/systemd/*; do
    sed "s|/usr/bin/pgbraid|$(command -v true)|" "$unit" >"$scratch/$(basename "$unit")"
  done
  units=("$scratch"/*.service "$scratch"/*.socket)
  run "systemd units" systemd-analyze verify --man=no --recursive-errors=yes "${units[@]}"
  # 0 is shut off from everything, 10 is open; systemd calls up to 2 fine.
  for unit in "$scratch"/*.service; do
    run "exposure of $(basename "$unit")" quiet systemd-analyze security --no-pager --offline=yes --threshold=20 "$unit"
  done
else
  skip "systemd units" "no systemd-analyze"
fi

if has check-jsonschema; then
  run "compose file" check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
else
  skip "compose file" "no check-jsonschema"
fi

if has kubernetes-validate; then
  run "Kubernetes manifests" kubernetes-validate --strict --quiet deploy/kubernetes-*.yaml
else
  skip "Kubernetes manifests" "no kubernetes-validate"
fi

# The chart as it comes, and with everything that is off by default.
if has helm; then
  for values in values lint-values; do
    run "Helm chart, $values" helm lint --strict --quiet deploy/helm -f "deploy/helm/$values.yaml"
    run "templates of the Helm chart, $values" \
      quiet helm template shop deploy/helm -f "deploy/helm/$values.yaml" --output-dir "$scratch/$values"
    if has kubernetes-validate; then
      run "manifests of the Helm chart, $values" kubernetes-validate --strict --quiet "$scratch/$values"/pgbraid/templates/*.yaml
    fi
  done
else
  skip "Helm chart" "no helm"
fi

if has hadolint; then
  run "Dockerfile" hadolint Dockerfile
else
  skip "Dockerfile" "no hadolint"
fi

scripts=(deploy/*.sh .ci/run deploy/debian/postinst)
if has shellcheck; then
  run "shell scripts" shellcheck "${scripts[@]}"
else
  for script in "${scripts[@]}"; do run "syntax of $script" bash -n "$script"; done
  skip "shell scripts" "no shellcheck"
fi
exit "$failed"
