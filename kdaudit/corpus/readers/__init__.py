"""From the files of a corpus to rows, one module a family of formats."""
