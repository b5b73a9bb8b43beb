#!/usr/bin/env bash
# Write text: scripts/sample.sh --model data/pretrained/tales-mdlm   (the same as `diffkit sample ...`)
set -euo pipefail
repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ -x "$repo/.venv/bin/diffkit" ]; then exec "$repo/.venv/bin/diffkit" sample "$@"; fi
exec diffkit sample "$@"
