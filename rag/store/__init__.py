"""SQL: the source of truth for documents, chunks, index generations and tombstones."""
