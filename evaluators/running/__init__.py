"""A run: its settings, its samples through the network, its folder."""
