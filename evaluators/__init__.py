"""LLM judges. Knows nothing of training."""
