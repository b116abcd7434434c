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
#   --build-arg GPU_MEMORY_BUDGET=4096   MiB on the GPU, with the same default; memory is limited by the container
#   --build-arg EXTRAS=dicom       what the convention needs besides, as extras of pyproject.toml
#   --build-arg LEAVE=flare        what the convention does not need: flarekit/images/docker/flare.packages.txt
#   --build-arg TORCH_INDEX=URL    index of the torch that compiles the network for CPUs, which the image does not
#                                  keep; https://download.pytorch.org/whl/cpu has one of a quarter of the size
#   --build-arg CUDA_TORCH=2.7.1   the torch of images for a GPU, from CUDA_INDEX or PyPI; CUDA,
#                                  CUDA_ARCHITECTURES and CUDA_DRIVER are what it is labelled with, and checked
#   --build-arg TRUST=1            the predictor may execute what it names (flarekit build --trust)
#   --build-arg MAMBA=1            mamba-ssm's kernel too, built for MAMBA_ARCHITECTURES, some minutes on two cores;
#                                  needs a torch with CUDA 13, for which there is a compiler on PyPI (see docs)
#
# What an image installs is what pyproject.toml names, less the packages and files in flarekit/images/docker/*.txt. uv installs it,
# because pip cannot leave out a package that another one names.
ARG BASE=python:3.11-slim-bookworm
ARG SITE=/opt/flarekit/lib/python3.11/site-packages
ARG PREDICTOR=abdomen_ct
ARG CONVENTION=
ARG EXTRAS=
ARG LEAVE=
ARG TIME_BUDGET=convention
ARG GPU_MEMORY_BUDGET=convention
ARG TRUST=
ARG CUDA_TORCH=2.7.1
ARG CUDA=12.6
ARG CUDA_ARCHITECTURES="sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90"
ARG CUDA_DRIVER=525.60.13

FROM ${BASE} AS python
WORKDIR /source
COPY flarekit/images/docker/uv.sh docker/
RUN . docker/uv.sh

# flarekit by itself, without weights: what every image has
FROM python AS own
ARG SITE
COPY pyproject.toml README.md LICENSE Dockerfile predict.sh ./
COPY flarekit flarekit
RUN . docker/uv.sh && rm -rf flarekit/web && mkdir weights /own && uv pip install --no-deps . \
    && python -m compileall -q ${SITE}/flarekit \
    && cd / && cp -a --parents opt/flarekit/bin/flarekit ${SITE#/}/flarekit* /own

# the network, compiled for CPUs: with torch, which goes no further
FROM python AS compile
ARG SITE
ARG CPU_TORCH=2.13.0
ARG TORCH_INDEX=
RUN . docker/uv.sh && uv pip install ${TORCH_INDEX:+--default-index "$TORCH_INDEX"} "torch==${CPU_TORCH}"
COPY pyproject.toml ./
COPY flarekit/images/docker/compile.packages.txt docker/
RUN . docker/uv.sh && uv pip install -r pyproject.toml "torch==${CPU_TORCH}" "dynamic-network-architectures<0.4" \
        --excludes docker/compile.packages.txt
COPY --from=own /own /
ARG PREDICTOR
# predictors may share a file by a link from one folder under weights/ to another
COPY weights /weights
RUN mkdir -p ${SITE}/flarekit/weights && cp -rL /weights/${PREDICTOR} ${SITE}/flarekit/weights/
ARG TRUST
RUN . docker/uv.sh && export FLAREKIT_TRUST=${TRUST} && flarekit weights verify ${PREDICTOR} \
    && flarekit compile ${PREDICTOR} --beside

FROM ${BASE} AS runtime
ENV PATH=/opt/flarekit/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
WORKDIR /workspace
COPY predict.sh ./
ENTRYPOINT []
CMD ["sh", "predict.sh"]

# what was installed is the image's own layer: no stage holds it a second time while the image is built
FROM runtime AS packages-cpu
ARG SITE
COPY pyproject.toml flarekit/images/docker/uv.sh flarekit/images/docker/*.packages.txt \
    flarekit/images/docker/cpu.files.txt flarekit/images/docker/leave_behind.py /build/
ARG EXTRAS
ARG LEAVE
RUN cd /build && . ./uv.sh \
    && uv pip install -r pyproject.toml $(for extra in ${EXTRAS}; do echo "--extra $extra"; done) \
        $(for list in cpu ${LEAVE}; do echo "--excludes $list.packages.txt"; done) \
    && python leave_behind.py cpu.files.txt ${SITE} \
    && python -m compileall -q -j 0 /opt/flarekit/lib \
    && rm -rf /build /opt/uv

FROM packages-cpu AS cpu
COPY --from=own /own /
ARG SITE
ARG PREDICTOR
COPY --from=compile ${SITE}/flarekit/weights/${PREDICTOR} ${SITE}/flarekit/weights/${PREDICTOR}
ARG CONVENTION
ARG TIME_BUDGET
ARG GPU_MEMORY_BUDGET
ARG TRUST
ENV FLAREKIT_PREDICTOR=${PREDICTOR} \
    FLAREKIT_TRUST=${TRUST} \
    FLAREKIT_CONVENTION=${CONVENTION} \
    FLAREKIT_TIME_BUDGET=${TIME_BUDGET} \
    FLAREKIT_GPU_MEMORY_BUDGET=${GPU_MEMORY_BUDGET} \
    FLAREKIT_RAM_BUDGET=container
RUN python -m flarekit.images.bill /opt/flarekit/sbom.cdx.json
LABEL flarekit.sbom=/opt/flarekit/sbom.cdx.json

FROM cpu AS gc-cpu
USER 1000:1000
CMD ["flarekit", "job"]

# mamba-ssm's kernel, built from its source release where MAMBA is set; nothing otherwise
FROM python AS mamba
ARG SITE
ARG MAMBA=
ARG MAMBA_SSM=2.3.2.post1
ARG MAMBA_ARCHITECTURES="sm_80 sm_90"
ARG CUDA_TORCH
ARG CUDA_INDEX=
COPY flarekit/images/docker/build_mamba.sh flarekit/images/docker/restrict_mamba.py docker/
RUN mkdir -p /mamba${SITE} && if [ -n "${MAMBA}" ]; then . docker/uv.sh && sh docker/build_mamba.sh /wheels \
    && uv pip install --no-deps --target /mamba${SITE} /wheels/*.whl; fi

# torch with CUDA and its libraries, a layer for all images; the driver comes from the NVIDIA runtime
FROM runtime AS packages-cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ARG SITE
ARG CUDA_TORCH
ARG CUDA_INDEX=
ARG CUDA
ARG CUDA_ARCHITECTURES
ARG CUDA_DRIVER
COPY flarekit/images/docker/uv.sh flarekit/images/docker/cuda.packages.txt flarekit/images/docker/check_cuda.py \
    flarekit/images/docker/torch.files.txt flarekit/images/docker/leave_behind.py flarekit/engine/_cuda_driver.py /build/
RUN cd /build && . ./uv.sh \
    && uv pip install ${CUDA_INDEX:+--default-index "$CUDA_INDEX"} --excludes cuda.packages.txt \
        "torch==${CUDA_TORCH}" numpy \
    && python check_cuda.py "${CUDA}" "${CUDA_ARCHITECTURES}" "${CUDA_DRIVER}" \
    && python leave_behind.py torch.files.txt ${SITE} \
    && python -m compileall -q -j 0 /opt/flarekit/lib \
    && rm -rf /build /opt/uv
COPY pyproject.toml flarekit/images/docker/uv.sh flarekit/images/docker/*.packages.txt \
    flarekit/images/docker/cuda.files.txt flarekit/images/docker/leave_behind.py /build/
ARG EXTRAS
ARG LEAVE
RUN cd /build && . ./uv.sh \
    && uv pip install -r pyproject.toml "torch==${CUDA_TORCH}" "dynamic-network-architectures<0.4" \
        $(for extra in ${EXTRAS}; do echo "--extra $extra"; done) \
        $(for list in cuda ${LEAVE}; do echo "--excludes $list.packages.txt"; done) \
    && python leave_behind.py cuda.files.txt ${SITE} \
    && python -m compileall -q -j 0 /opt/flarekit/lib \
    && rm -rf /build /opt/uv
COPY --from=mamba /mamba /

FROM packages-cuda AS cuda
COPY --from=own /own /
ARG CUDA
ARG CUDA_ARCHITECTURES
ARG CUDA_DRIVER
LABEL flarekit.cuda.version=${CUDA} \
    flarekit.cuda.architectures=${CUDA_ARCHITECTURES} \
    flarekit.cuda.driver=${CUDA_DRIVER}
ARG SITE
ARG PREDICTOR
COPY --from=compile ${SITE}/flarekit/weights/${PREDICTOR} ${SITE}/flarekit/weights/${PREDICTOR}
ARG CONVENTION
ARG TIME_BUDGET
ARG GPU_MEMORY_BUDGET
ARG TRUST
ENV FLAREKIT_PREDICTOR=${PREDICTOR} \
    FLAREKIT_TRUST=${TRUST} \
    FLAREKIT_CONVENTION=${CONVENTION} \
    FLAREKIT_TIME_BUDGET=${TIME_BUDGET} \
    FLAREKIT_GPU_MEMORY_BUDGET=${GPU_MEMORY_BUDGET} \
    FLAREKIT_RAM_BUDGET=container
RUN python -m flarekit.images.bill /opt/flarekit/sbom.cdx.json
LABEL flarekit.sbom=/opt/flarekit/sbom.cdx.json

FROM cuda AS gc
USER 1000:1000
CMD ["flarekit", "job"]

FROM cuda AS flare
