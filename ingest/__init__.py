"""Documents in: sources, parsing, cleaning, chunking, jobs. Writes through rag's store."""
