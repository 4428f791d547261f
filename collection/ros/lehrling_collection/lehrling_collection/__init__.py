"""Entry points of lehrling-collection's nodes for ROS 2; the code is in `lehrling.collection`."""
