"""Training of the tokenizer, the vectors and the network."""
