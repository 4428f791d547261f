"""Guards, servers and controllers that put a policy on a robot."""
