"""Typed values become the objects that a job is made of."""
