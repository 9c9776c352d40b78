"""Glitches of Gravity Spy and events of GWOSC: from spectrogram files to classifiers that meet the sky."""
