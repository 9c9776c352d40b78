"""What tells chirps from glitches and glitches from each other, and how well."""
