"""A real single-node Kubernetes cluster for tests, from Go modules and Debian packages."""
