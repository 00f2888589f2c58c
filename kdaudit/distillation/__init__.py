"""Training of the models that an audit compares: teacher, baseline, soft and hard students."""
