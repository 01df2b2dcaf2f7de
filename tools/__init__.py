"""Programs of the project's developers."""
