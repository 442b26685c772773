"""What is measured, one file a workload: ``python -m benchmarks.backplane``."""
