"""Numbers that judge a potential: pure functions on arrays, explained in docs/metrics.md."""
