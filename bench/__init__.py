"""The benchmarks: what Fanfare costs, beside its peers, in one run. `python -m bench --help`; docs/performance.md."""
