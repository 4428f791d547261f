"""The lehrling command."""
