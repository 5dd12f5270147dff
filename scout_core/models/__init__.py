"""The bundled models, their adapters and profiles. Knows files and tensors, not transformers."""
