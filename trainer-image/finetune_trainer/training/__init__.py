"""Any trainer of transformers or TRL with checkpoints that hold, agreement between ranks, and figures."""
