"""The training set: Gravity Spy's glitches, their metadata and their pictures."""
