"""Graphs of operations: values, nodes, schemas, symbolic sizes, the printer and the verifier."""

from tripy.graph import operations as operations
from tripy.graph.ir import Constraint, Graph, Node, Value, topological_order
from tripy.graph.schema import SCHEMAS, Schema, infer_node, make_node

__all__ = [
    "SCHEMAS", "Constraint", "Graph", "Node", "Schema", "Value", "infer_node", "make_node",
    "operations", "topological_order",
]  # fmt: skip
