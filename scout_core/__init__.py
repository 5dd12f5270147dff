"""Scout: bandwidth-adaptive KV-cache transport for edge-cloud LLM inference."""
