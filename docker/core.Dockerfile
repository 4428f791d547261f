# Lehrling `core`: simulation, training on the CPU, evaluation. Build from the repository's root:
#   docker build -f docker/core.Dockerfile -t lehrling/core:0.1.0 .
# The tag is rebuilt from time to time; whoever needs builds that are the same to the bit gives PYTHON_IMAGE with a digest
# (--build-arg PYTHON_IMAGE=python:3.12.12-slim-bookworm@sha256:…).
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Versions come from the base image's Debian release, which its tag pins; only this stage uses them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PROJECT_ENVIRONMENT=/opt/lehrling
WORKDIR /src
# Third-party packages first: this layer, with PyBullet's build, is kept until the lock changes.
COPY pyproject.toml uv.lock .python-version ./
COPY cli/pyproject.toml cli/
COPY collection/pyproject.toml collection/
COPY datasets/pyproject.toml datasets/
COPY deploy/pyproject.toml deploy/
COPY sim/pyproject.toml sim/
COPY training/pyproject.toml training/
RUN uv sync --frozen --no-dev --all-packages --no-install-workspace
COPY cli/lehrling cli/lehrling
COPY collection/lehrling collection/lehrling
COPY datasets/lehrling datasets/lehrling
COPY deploy/lehrling deploy/lehrling
COPY sim/lehrling sim/lehrling
COPY training/lehrling training/lehrling
RUN uv sync --frozen --no-dev --all-packages --no-editable

FROM ${PYTHON_IMAGE} AS core
LABEL org.opencontainers.image.title="Lehrling core" \
      org.opencontainers.image.description="Robot demonstrations in simulation, LoRA training on the CPU, closed-loop evaluation" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN groupadd --gid 10001 lehrling \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin lehrling \
    && install --directory --owner=10001 --group=10001 /data
COPY --from=build /opt/lehrling /opt/lehrling
# USER: PyTorch asks for a user name when it is imported and fails under a uid that has none, as with `--user 1001`.
# HF_HUB_OFFLINE: nothing is downloaded unless whoever starts the container says so (-e HF_HUB_OFFLINE=0).
ENV PATH=/opt/lehrling/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 USER=lehrling \
    HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
USER 10001:10001
WORKDIR /data
VOLUME /data
HEALTHCHECK --interval=60s --timeout=20s --start-period=10s --retries=3 CMD ["lehrling", "sim", "tasks", "--json"]
ENTRYPOINT ["lehrling"]
CMD ["--help"]
