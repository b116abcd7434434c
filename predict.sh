#!/bin/sh
# What FLARE's evaluator calls: masks of every scan in the inputs folder.
#   sh predict.sh [INPUTS [OUTPUTS]]
set -eu
export FLAREKIT_STATE=  # a container is gone after its run: no ledger to resume it by
exec flarekit predict --input "${1:-/workspace/inputs}" --output "${2:-/workspace/outputs}"
