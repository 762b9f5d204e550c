"""Documents in: sources, parsing, chunking, jobs."""
