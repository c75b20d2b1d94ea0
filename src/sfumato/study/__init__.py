"""Studies: change a design, train, measure, and say with an interval what the change did."""
