"""What is known about a judge: figures with intervals, comparisons, planning (docs/trusting_the_judge.md)."""
