"""The TensorRT backend: graphs as networks with Q/DQ layers, built into engines."""
