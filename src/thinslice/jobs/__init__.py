"""Job time: compact, load, train, measure, refill, and the simulated shoppers; minutes, not milliseconds."""
