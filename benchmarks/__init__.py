"""Benchmarks that compare with published samplers or need more time: `python -m benchmarks NAME`."""
