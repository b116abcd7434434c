# One build, two images:
#   docker build -t flarekit:latest .                  FLARE: root, no ENTRYPOINT, predict.sh
#   docker build -t flarekit-gc:latest --target gc .   grand-challenge: not root
#
#   --build-arg PREDICTOR=NAME     a folder under weights/; only this one goes in
#   --build-arg TORCH_INDEX=URL    where torch comes from. PyPI's wheel brings CUDA (the driver comes from
#                                  the NVIDIA runtime); https://download.pytorch.org/whl/cpu is a quarter of
#                                  the size and runs on the CPU only.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS install
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=
ENV PATH=/opt/flarekit/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/flarekit \
    && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==${TORCH_VERSION}"
WORKDIR /source
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > requirements.txt && pip install -r requirements.txt "torch==${TORCH_VERSION}"
COPY README.md LICENSE ./
COPY flarekit flarekit
ARG PREDICTOR=abdomen_ct
COPY weights/${PREDICTOR} weights/${PREDICTOR}
RUN pip install --no-deps . && cd / && python -c "from flarekit.pipeline.predictors import build_networks, \
find_predictor; build_networks(find_predictor('${PREDICTOR}'))"

FROM ${BASE} AS runtime
ARG PREDICTOR=abdomen_ct
COPY --from=install /opt/flarekit /opt/flarekit
ENV PATH=/opt/flarekit/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    FLAREKIT_PREDICTOR=${PREDICTOR}
WORKDIR /workspace
COPY predict.sh ./
ENTRYPOINT []
CMD ["sh", "predict.sh"]

FROM runtime AS gc
USER 1000:1000

FROM runtime AS flare
