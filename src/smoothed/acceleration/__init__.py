"""The same network, cheaper: fused weights, bf16, compiled operations."""
