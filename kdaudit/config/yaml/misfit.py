"""What a check of kdaudit's own refuses in a configuration."""

from __future__ import annotations

from kdaudit.errors import ConfigError


class MisfitError(ConfigError, ValueError):
    """A value that does not fit the others.

    Its key is relative to the section that is checked, as in `students.0.name`; None stands for the checked
    value itself. It is a ValueError, so that pydantic collects it with whatever else is wrong in the file.
    """
