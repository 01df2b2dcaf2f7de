"""What surrounds the work of a stage in its pod: it is started, watched, stopped, and has the last word."""
