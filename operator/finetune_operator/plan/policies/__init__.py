"""The decisions, a file each; planner.py says in which order they are asked."""
