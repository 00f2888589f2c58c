"""HTML templates of the reports; installed as kdaudit.templates."""
