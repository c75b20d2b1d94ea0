"""One file per protocol: plan its items, analyse their records."""
