"""`kdaudit demo`: a tiny teacher, three baselines and two students, trained on text that every Python has."""
