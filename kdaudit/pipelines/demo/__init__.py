"""`kdaudit demo`: a tiny teacher, baseline and two students, trained live on text that every Python has."""
