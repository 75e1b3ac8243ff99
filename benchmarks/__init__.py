"""What is timed: each file is one benchmark, `python -m benchmarks` runs them all and prints the machine first."""
