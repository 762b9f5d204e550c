"""Measuring retrieval and whole answers on questions with known results."""
