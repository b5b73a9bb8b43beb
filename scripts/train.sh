#!/usr/bin/env bash
# Train a model: scripts/train.sh --config configs/tiny.yaml   (the same as `diffkit train ...`)
set -euo pipefail
repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ -x "$repo/.venv/bin/diffkit" ]; then exec "$repo/.venv/bin/diffkit" train "$@"; fi
exec diffkit train "$@"
