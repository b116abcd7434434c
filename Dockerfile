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
#   --build-arg EXTRAS=dicom       what the convention needs besides
#   --build-arg TORCH_INDEX=URL    where torch comes from. PyPI's wheel brings CUDA (the driver comes from
#                                  the NVIDIA runtime); https://download.pytorch.org/whl/cpu is a quarter of
#                                  the size and is all that the CPU images need, which leave it behind.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS python
ENV PATH=/opt/flarekit/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY pyproject.toml ./
ARG EXTRAS=
# what the package needs, with and without torch
RUN python -m venv /opt/flarekit && python -c "import re, sys, tomllib; from pathlib import Path; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = project['optional-dependencies']; \
lean = [need for extra in sys.argv[1:] for need in extras[extra]]; \
needs = {'torch.txt': [], 'lean.txt': lean, 'cpu.txt': extras['cpu']}; \
[needs['torch.txt' if re.match('torch|dynamic-network', need) else 'lean.txt'].append(need) \
for need in project['dependencies']]; \
[Path(name).write_text('\\n'.join(lines)) for name, lines in needs.items()]" ${EXTRAS}
RUN pip install -r lean.txt

# torch, and OpenVINO: what runs where no GPU is, also in the images with torch
FROM python AS packages
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==${TORCH_VERSION}" \
    && pip install -r torch.txt "torch==${TORCH_VERSION}" "dynamic-network-architectures<0.4"
RUN pip install -r cpu.txt

FROM packages AS compile
COPY README.md LICENSE Dockerfile predict.sh ./
COPY flarekit flarekit
ARG PREDICTOR=abdomen_ct
COPY weights/${PREDICTOR} weights/${PREDICTOR}
RUN pip install --no-deps . && cd / && flarekit weights verify ${PREDICTOR} \
    && flarekit compile ${PREDICTOR} --beside

# leave behind what a run never opens: installers, tests, OpenVINO for other devices and formats
FROM python AS packages-cpu
RUN pip install -r cpu.txt && python -m compileall -q /opt/flarekit/lib \
    && cd /opt/flarekit/lib/python3.11/site-packages \
    && find . -type d -name tests -prune -exec rm -r {} + \
    && rm -r openvino/include openvino/libs/cache.json \
       openvino/libs/*_gpu_* openvino/libs/*_npu_* openvino/libs/*_onnx_* openvino/libs/*_paddle_* \
       openvino/libs/*_tensorflow_* openvino/libs/*_jax_* openvino/libs/*_gguf_*

FROM packages-cpu AS install-cpu
COPY README.md LICENSE Dockerfile predict.sh ./
COPY flarekit flarekit
ARG PREDICTOR=abdomen_ct
COPY weights/${PREDICTOR} weights/${PREDICTOR}
RUN pip install --no-deps . \
    && python -m compileall -q /opt/flarekit/lib/python3.11/site-packages/flarekit \
    && pip uninstall -q -y setuptools pip
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
