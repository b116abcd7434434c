# One build, four images:
#   docker build -t flarekit:latest .                     FLARE: root, no ENTRYPOINT, predict.sh
#   docker build -t flarekit-gc:latest --target gc .      grand-challenge: not root
#   docker build -t flarekit:cpu --target cpu .           FLARE without a GPU: no torch inside, 0.6 GB
#   docker build -t flarekit-gc:cpu --target gc-cpu .     grand-challenge without a GPU
#
# flarekit build chooses the target and the arguments, and labels the image for flarekit verify.
#
#   --build-arg PREDICTOR=NAME     a folder under weights/; only this one goes in
#   --build-arg CONVENTION=NAME    whose layout; the predictor's own by default
#   --build-arg TIME_BUDGET=15     seconds that a case may take, 0 for no limit; the convention's tolerance by default
#   --build-arg GPU_MEMORY_BUDGET=4096   MiB on the GPU, likewise; memory: the container's limit
#   --build-arg EXTRAS=dicom       what the convention needs besides, as extras of pyproject.toml
#   --build-arg TORCH_INDEX=URL    where the torch comes from that compiles the network for CPUs and stays
#                                  behind; https://download.pytorch.org/whl/cpu is a quarter of PyPI's size
#
# What an image installs is what pyproject.toml names, less the packages and files in docker/*.txt. uv installs it,
# because pip cannot leave out a package that another one names.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS python
# uv looks for packages where the base image tells pip to
ENV PATH=/opt/flarekit/bin:/opt/uv/bin:$PATH VIRTUAL_ENV=/opt/flarekit \
    UV_DEFAULT_INDEX=${PIP_INDEX_URL} UV_INDEX=${PIP_EXTRA_INDEX_URL} UV_FIND_LINKS=${PIP_FIND_LINKS} \
    UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN python -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==0.13.*" && uv venv /opt/flarekit
WORKDIR /source

# the network, compiled for CPUs: with torch, which goes no further
FROM python AS compile
ARG CPU_TORCH=2.13.0
ARG TORCH_INDEX=
RUN uv pip install ${TORCH_INDEX:+--default-index "$TORCH_INDEX"} "torch==${CPU_TORCH}"
COPY pyproject.toml ./
RUN uv pip install -r pyproject.toml "torch==${CPU_TORCH}" "dynamic-network-architectures<0.4"
COPY README.md LICENSE Dockerfile predict.sh ./
COPY docker docker
COPY flarekit flarekit
ARG PREDICTOR=abdomen_ct
COPY weights/${PREDICTOR} weights/${PREDICTOR}
RUN uv pip install --no-deps . && cd / && flarekit weights verify ${PREDICTOR} \
    && flarekit compile ${PREDICTOR} --beside

FROM python AS packages-cpu
COPY pyproject.toml ./
COPY docker docker
ARG EXTRAS=
RUN uv pip install -r pyproject.toml --excludes docker/cpu.packages.txt \
        $(for extra in ${EXTRAS}; do echo "--extra $extra"; done) \
    && python docker/leave_behind.py docker/cpu.files.txt /opt/flarekit/lib/python3.11/site-packages \
    && python -m compileall -q /opt/flarekit/lib

FROM packages-cpu AS install-cpu
COPY README.md LICENSE Dockerfile predict.sh ./
COPY flarekit flarekit
ARG PREDICTOR=abdomen_ct
COPY weights/${PREDICTOR} weights/${PREDICTOR}
RUN uv pip install --no-deps . \
    && python -m compileall -q /opt/flarekit/lib/python3.11/site-packages/flarekit
COPY --from=compile /opt/flarekit/lib/python3.11/site-packages/flarekit/weights/${PREDICTOR}/compiled \
    /opt/flarekit/lib/python3.11/site-packages/flarekit/weights/${PREDICTOR}/compiled

FROM ${BASE} AS runtime
ARG PREDICTOR=abdomen_ct
ENV PATH=/opt/flarekit/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    FLAREKIT_PREDICTOR=${PREDICTOR}
WORKDIR /workspace
COPY predict.sh ./
ARG CONVENTION=
ARG TIME_BUDGET=convention
ARG GPU_MEMORY_BUDGET=convention
ENV FLAREKIT_CONVENTION=${CONVENTION} \
    FLAREKIT_TIME_BUDGET=${TIME_BUDGET} \
    FLAREKIT_GPU_MEMORY_BUDGET=${GPU_MEMORY_BUDGET} \
    FLAREKIT_RAM_BUDGET=container
ENTRYPOINT []
CMD ["sh", "predict.sh"]

FROM runtime AS cpu
COPY --from=install-cpu /opt/flarekit /opt/flarekit

FROM cpu AS gc-cpu
USER 1000:1000
CMD ["flarekit", "job"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=compile /opt/flarekit /opt/flarekit

FROM cuda AS gc
USER 1000:1000
CMD ["flarekit", "job"]

FROM cuda AS flare
