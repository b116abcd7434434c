#!/bin/sh
# What FLARE's evaluator calls: masks of every scan in the inputs folder.
#   sh predict.sh [INPUTS [OUTPUTS]]
set -eu
export FLAREKIT_STATE="${FLAREKIT_STATE-}"  # no ledger unless asked for: the container is gone after its run
exec flarekit predict --input "${1:-/workspace/inputs}" --output "${2:-/workspace/outputs}"
