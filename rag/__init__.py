"""Finds and answers: stores, indexes, retrieval, reading, citations, evaluation."""
