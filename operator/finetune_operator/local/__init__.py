"""Runs the pods of a job's plan as processes of this machine: the operator's planner without a cluster."""
