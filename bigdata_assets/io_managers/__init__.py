"""Where each kind of result is stored, and how it is read back. Only these and the resources touch storage."""
