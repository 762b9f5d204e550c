"""One file per resource; `api.app` includes them all."""
