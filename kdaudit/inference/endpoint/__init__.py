"""A model behind an OpenAI-compatible completions endpoint, as an engine.

client.py    requests, retries, and what a server says in its stream
stream.py    the bytes of an answer -> pieces of a completion
ways.py      whether a server takes and gives token ids or text
matching.py  which targets a completion still follows, by token ids or by text
engine.py    the engine
checking.py  before an audit: is the model there, and does it answer alike twice?
"""
