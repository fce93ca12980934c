"""The models that tests, the demo and the benchmarks use: graphs are kept, weights are drawn by seed."""
