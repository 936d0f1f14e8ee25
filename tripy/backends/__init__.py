"""Backends: what turns graphs into results."""
