"""Engines that assets work with: how each is reached, opened and closed. No logic and no storage rules."""
