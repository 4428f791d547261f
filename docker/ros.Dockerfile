# Lehrling `ros`: recorder, teleoperation, replay and simulator with ROS 2 from apt; no PyTorch. From the repository's root:
#   docker build -f docker/ros.Dockerfile -t lehrling/ros:0.1.0 .
# ROS tags name no version and are rebuilt at every sync of the distribution; pin a digest for anything that must be the same
# again: `docker buildx imagetools inspect ros:kilted-ros-base-noble` prints it,
#   --build-arg ROS_IMAGE=ros:kilted-ros-base-noble@sha256:… takes it.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm
ARG ROS_IMAGE=ros:kilted-ros-base-noble

FROM ${PYTHON_IMAGE} AS uv
RUN pip install --no-cache-dir uv==0.13.9

FROM ${ROS_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Versions come from the base image's Ubuntu release, which its tag names; only this stage uses them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make python3-colcon-common-extensions python3-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=uv /usr/local/bin/uv /usr/local/bin/uv
# ROS's compiled modules are for Ubuntu's Python, so the environment is made with it.
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/lehrling
RUN uv venv --python /usr/bin/python3.12 /opt/lehrling
WORKDIR /src
# Third-party packages first, as the lock has them with their hashes, less what only training needs.
COPY pyproject.toml uv.lock .python-version ./
COPY cli/pyproject.toml cli/
COPY collection/pyproject.toml collection/
COPY datasets/pyproject.toml datasets/
COPY deploy/pyproject.toml deploy/
COPY sim/pyproject.toml sim/
COPY training/pyproject.toml training/
RUN uv export --frozen --no-dev --package lehrling --prune lehrling-training --no-emit-workspace --output-file /requirements.txt \
    && uv pip install --requirements /requirements.txt
COPY cli/lehrling cli/lehrling
COPY collection/lehrling collection/lehrling
COPY datasets/lehrling datasets/lehrling
COPY deploy/lehrling deploy/lehrling
COPY sim/lehrling sim/lehrling
RUN uv pip install --no-deps ./datasets ./deploy ./collection ./sim ./cli
COPY collection/ros/lehrling_collection collection/ros/lehrling_collection
RUN . "/opt/ros/${ROS_DISTRO}/setup.sh" \
    && colcon build --base-paths collection/ros --build-base /build --install-base /opt/lehrling_ros --merge-install

FROM ${ROS_IMAGE} AS ros
LABEL org.opencontainers.image.title="Lehrling ros" \
      org.opencontainers.image.description="Robot demonstrations recorded from ROS 2: recorder, teleoperation, replay, simulator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN groupadd --gid 10001 lehrling \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin lehrling \
    && install --directory --owner=10001 --group=10001 /data
COPY --from=build /opt/lehrling /opt/lehrling
COPY --from=build /opt/lehrling_ros /opt/lehrling_ros
COPY --chmod=755 docker/ros-entrypoint.sh /usr/local/bin/lehrling-ros
# ROS_LOG_DIR: under another uid, as with `--user 1001`, the home folder cannot be written.
ENV PATH=/opt/lehrling/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ROS_LOG_DIR=/tmp/ros-log
USER 10001:10001
WORKDIR /data
VOLUME /data
HEALTHCHECK --interval=60s --timeout=20s --start-period=10s --retries=3 \
    CMD ["lehrling-ros", "python3", "-c", "import rclpy, lehrling.collection.node"]
ENTRYPOINT ["lehrling-ros"]
CMD ["ros2", "launch", "lehrling_collection", "record.launch.xml", "--show-args"]
