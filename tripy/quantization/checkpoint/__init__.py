"""Quantized checkpoints that other tools read and write."""
