"""ChatGGLM's own generator: tokenizer, encoder–decoder, training and CPU inference.

Knows nothing of documents, indexes or HTTP: `rag` and everything above may import it,
it imports none of them.
"""

__version__ = "0.1.0"
