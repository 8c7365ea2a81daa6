"""The laboratory: train a causal LM with any normalization scheme and measure what its layers do."""
