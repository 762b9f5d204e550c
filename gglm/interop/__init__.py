"""To and from other systems: Hugging Face, ONNX, word vectors, LoRA."""
