"""Configuration: the keys of audit.yaml, and how files and `--set` become them."""
