"""Memory systems, judges and tables: compares systems on the benchmarks."""
