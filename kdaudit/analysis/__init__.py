"""Evaluation of results: inheritance and its intervals, the gate, and what leaks hold."""
