# Sourced by steps that install packages: uv in /opt/uv and an environment in /opt/flarekit, made where they
# are not there yet. Steps of what becomes the image remove /opt/uv again: what a step has removed takes no
# space in the image, and a copy of the packages from a stage of their own would take it twice while it is built.
set -e
export VIRTUAL_ENV=/opt/flarekit PATH="/opt/flarekit/bin:/opt/uv/bin:$PATH"
# uv looks for packages where the base image tells pip to
export UV_DEFAULT_INDEX="${PIP_INDEX_URL:-}" UV_INDEX="${PIP_EXTRA_INDEX_URL:-}" UV_FIND_LINKS="${PIP_FIND_LINKS:-}"
export UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
[ -d /opt/uv ] || { python -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --quiet "uv==0.13.*"; }
[ -d /opt/flarekit ] || uv venv --quiet /opt/flarekit
