"""Decides what a job needs next: pure, from `Observed`, a time and `PlanSettings` to a `Plan`."""
