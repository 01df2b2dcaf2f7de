"""`finetune`, also `kubectl finetune`: run, plan, templates, watch, logs."""
