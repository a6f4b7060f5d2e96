"""Speed and memory beside a peer's, from one run: `python -m benchmarks.NAME [--json]`."""
