#!/bin/bash
# Run a command with ROS and Lehrling's packages sourced; health checks come this way too, past the image's entry point.
set -e
for prefix in "/opt/ros/${ROS_DISTRO}" /opt/lehrling_ros; do
  # shellcheck disable=SC1091
  source "${prefix}/setup.bash" --
done
exec "$@"
