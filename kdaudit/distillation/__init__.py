"""Training of what an audit compares: teacher, baseline, soft and hard students."""
