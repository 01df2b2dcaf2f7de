"""What keeps the operator running: store, queue, workers, resync, leader election, metrics. Knows no Kopf and no client."""
