"""Indexes derived from SQL: BM25 postings and vectors, in immutable generations."""
