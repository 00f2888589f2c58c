"""Models before they are loaded: found, checked to be whole, safe and auditable, with their tokenizers."""
