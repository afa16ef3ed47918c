"""Speed, memory and accuracy against a rival or a physical limit of the same run."""
