"""Configuration files in YAML for any pydantic model: places of errors, nearest names, `--set`."""
