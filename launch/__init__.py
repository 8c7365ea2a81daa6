"""Presets for running `lab/pretrain.py` on one machine and on clusters."""
