"""Training a run on the device, and scoring it again."""
