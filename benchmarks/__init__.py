"""One script per stage: ours, the bare library, the classic way, in one run; `make bench` prints the ratios."""
