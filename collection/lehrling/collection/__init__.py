"""ROS 2 recording of robot demonstrations."""
