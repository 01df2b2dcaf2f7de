"""What keeps the operator running: store, queue, workers, resync, election, metrics. No Kopf and no client here."""
