"""Faster forms of a network: fused weights, bf16, compiled operations."""
