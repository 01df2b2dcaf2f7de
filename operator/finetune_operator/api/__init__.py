"""The API group finetune-operator.io/v1alpha1 as pydantic models."""
