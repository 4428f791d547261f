"""PyBullet worlds, industrial tasks, scripted experts and demonstration recording."""
