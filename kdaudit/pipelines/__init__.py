"""The maps of the program, each readable top to bottom: audit, screening, benchmark, demo."""
