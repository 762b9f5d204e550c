"""Training of `gglm-embed-zh`: tokenizer, pairs, static start, encoder, retrieval scores."""
