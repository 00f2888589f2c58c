"""Calls of the Hugging Face hub."""
