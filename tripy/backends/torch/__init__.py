"""The torch backend: CPU and CUDA from one lowering table."""
