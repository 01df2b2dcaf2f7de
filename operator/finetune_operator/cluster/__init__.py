"""Everything that talks to the API server or to pods. The only importer of the Kubernetes client."""
