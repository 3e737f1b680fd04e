"""What replacement policies are worth: hit ratios on traces. `python -m bench.hitratio --help`."""
