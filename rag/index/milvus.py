"""Vectors in Milvus (extra ``[milvus]``): one collection an index, on a server, a cluster, or in a file by Milvus Lite.

Milvus knows no transactions of ours, so the order of writing keeps it equal to SQL: vectors are there before the
transaction that makes their chunks visible, and are deleted only once the one that made them invisible is committed.
What lies between (vectors of a transaction that was rolled back, of chunks that are tombstoned) is never found, as
retrieval joins SQL. Chunk ids are not given twice; on SQLite those of a rolled-back transaction are, hence upserts.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import IndexUnavailable, InvalidInput
from rag.index import files
from rag.index.stores import moved
from rag.index.vectors import FaissStore, check_vectors
from rag.ports import FloatMatrix, IdArray

STATE = "milvus.json"
BATCH = 1000
"""Vectors in one request."""
MOST = 16_384
"""Results that Milvus gives at most."""
ORPHAN_SECONDS = 24 * 3600.0
"""A collection that no generation names is what a crash left, once it is this old."""


@lru_cache(maxsize=8)
def _client(uri: str, token: str) -> Any:
    """A connection, one a process and server.

    Raises:
        InvalidInput: pymilvus is not installed.
        IndexUnavailable: Milvus cannot be reached.
    """
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise InvalidInput("CHATGGLM_MILVUS_URI needs the client: pip install 'chatgglm[milvus]'.") from None
    for name in ("pymilvus", "grpc._server"):  # they print what we tell in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _understandable(uri):
        return MilvusClient(uri=uri, token=token, timeout=10)


@contextmanager
def _understandable(where: str) -> Iterator[None]:
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, OSError) as error:
        reason = (getattr(error, "message", "") or str(error)).strip().splitlines()[0].rstrip(".")
        raise IndexUnavailable(
            f"Milvus ({where}) cannot be used: {reason[:200]}. Check CHATGGLM_MILVUS_URI and "
            "that the server runs; if it lost its data, `chatgglm kb rebuild` makes the index again from the database."
        ) from error


class MilvusStore:
    """The `VectorStore` port on one collection. A store without a collection makes one when it is first added to."""

    segments: tuple[()] = ()
    """None on our disk."""

    def __init__(
        self, stores: MilvusStores, kb_id: int, collection: str = "", dim: int = 0, dead: IdArray | None = None
    ) -> None:
        self._stores = stores
        self._kb_id = kb_id
        self._collection = collection
        self._dim = dim
        self._dead = np.zeros(0, dtype=np.int64) if dead is None else dead
        self._doomed = self._dead
        """Dead in SQL for sure: deleted from Milvus with the next change."""

    @property
    def dim(self) -> int:
        """Length of a vector; 0: as the first that is added."""
        return self._dim

    def due(self) -> tuple[str, ...]:
        """Milvus merges its segments by itself."""
        return ()

    def add(self, ids: Sequence[int] | IdArray, vectors: FloatMatrix) -> None:
        """Store unit-length vectors float32 (n, dim) under chunk ids; they are durable when this returns.

        Raises:
            ValueError: shape, dtype or length of a vector is wrong.
            IndexUnavailable: Milvus does not answer.
        """
        check_vectors(vectors)
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors")
        if self._dim and len(vectors) and vectors.shape[1] != self._dim:
            raise ValueError(f"vectors of {self._dim} dimensions are needed, not {vectors.shape[1]}")
        if not len(vectors):
            return
        with self._stores.client() as client:
            if not self._collection:
                self._dim = vectors.shape[1]
                self._collection = self._stores.create(client, self._kb_id, self._dim)
            for at in range(0, len(vectors), BATCH):
                pairs = zip(ids[at : at + BATCH], vectors[at : at + BATCH], strict=True)
                client.upsert(self._collection, [{"id": int(i), "vector": v} for i, v in pairs])
            self._purge(client)

    def delete(self, ids: Sequence[int] | IdArray) -> None:
        """Chunks that are not found any more. Milvus keeps them until the next change, when that is committed."""
        self._dead = np.union1d(self._dead, files.id_array(ids))

    def _purge(self, client: Any) -> None:
        for at in range(0, len(self._doomed), BATCH):
            client.delete(self._collection, ids=self._doomed[at : at + BATCH].tolist())
        self._dead = self._dead[~files.member(self._dead, self._doomed)]
        self._doomed = self._dead[:0]

    def search(
        self, queries: FloatMatrix, k: int, allowed: IdArray | None = None, excluded: IdArray | None = None
    ) -> tuple[IdArray, FloatMatrix]:
        """The ``k`` nearest for each of q queries: ids int64 (q, k) and cosines float32 (q, k), best first; −1
        and 0 where fewer vectors are allowed.

        Raises:
            ValueError: the queries have another number of dimensions.
            IndexUnavailable: Milvus does not answer.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        ids = np.full((len(queries), max(k, 0)), -1, dtype=np.int64)
        scores = np.zeros(ids.shape, dtype=np.float32)
        if k < 1 or not len(queries) or not self._collection or (allowed is not None and not len(allowed)):
            return ids, scores
        if queries.shape[1] != self._dim:
            raise ValueError(f"queries of {self._dim} dimensions are needed, not {queries.shape[1]}")
        hidden = self._dead if excluded is None else np.union1d(self._dead, files.id_array(excluded))
        conditions = [f"id in {files.id_array(allowed).tolist()}"] if allowed is not None else []
        conditions += [f"id not in {hidden.tolist()}"] if len(hidden) else []
        with self._stores.client() as client:
            found = client.search(
                self._collection,
                data=list(queries),
                filter=" and ".join(conditions),
                limit=min(k, MOST),
                output_fields=["id"],
                search_params={"metric_type": "IP"},
                consistency_level="Strong",  # what SQL shows can be found
            )
        for row, hits in enumerate(found):
            for column, hit in enumerate(sorted(hits, key=lambda hit: (-hit["distance"], hit["id"]))):
                ids[row, column], scores[row, column] = hit["id"], hit["distance"]
        return ids, scores

    def cosines(self, query: FloatMatrix, ids: IdArray) -> FloatMatrix:
        """Cosines of a query float32 (dim,) with the vectors of chunks, (n,); NaN where there is none.

        Raises:
            ValueError: the query has another number of dimensions.
            IndexUnavailable: Milvus does not answer.
        """
        found, scores = self.search(query[None], len(ids), allowed=np.asarray(ids, dtype=np.int64))
        held = {int(i): score for i, score in zip(found[0], scores[0], strict=True) if i >= 0}
        return np.array([held.get(int(i), np.nan) for i in ids], dtype=np.float32)

    def ids(self) -> IdArray:
        """The ids of all chunks that can be found, ascending: a walk over the whole collection.

        Raises:
            IndexUnavailable: Milvus does not answer.
        """
        if not self._collection:
            return np.zeros(0, dtype=np.int64)
        found: list[int] = []
        with self._stores.client() as client:
            pages = client.query_iterator(
                self._collection, batch_size=MOST // 2, output_fields=["id"], consistency_level="Strong"
            )
            while page := pages.next():
                found += [row["id"] for row in page]
            pages.close()
        ids = files.id_array(found)
        return ids[~files.member(ids, self._dead)]

    def save(self, path: Path) -> None:
        """Write to a new folder which collection it is, and what is deleted in it."""
        path.mkdir(parents=True)
        files.write_array(path / "dead.npy", self._dead)
        files.write_json(path / STATE, {"collection": self._collection, "dim": self._dim})
        files.sync_folder(path)


class MilvusStores:
    """Makes, opens and sweeps up the collections of one installation."""

    def __init__(self, uri: str, token: str = "", prefix: str = "chatgglm") -> None:
        self.uri = uri
        self.token = token
        self.prefix = prefix

    @contextmanager
    def client(self) -> Iterator[Any]:
        """The connection; its errors become `IndexUnavailable`."""
        client = _client(self.uri, self.token)
        with _understandable(self.uri):
            yield client

    def new(self, kb_id: int) -> MilvusStore:
        """An empty store."""
        return MilvusStore(self, kb_id)

    def open(self, path: Path, kb_id: int) -> MilvusStore:
        """What `MilvusStore.save` wrote, loaded into Milvus's memory.

        Raises:
            IndexUnavailable: the files or the collection are missing, or the vectors are not in Milvus.
        """
        if not (path / STATE).exists() and (path / FaissStore.state_file).exists():
            raise IndexUnavailable(moved("files", "in Milvus"))
        state = files.read_json(path / STATE)
        if name := state["collection"]:
            with self.client() as client:
                if not client.has_collection(name):
                    raise files.damaged(path / STATE, f"Milvus holds no collection {name}")
                client.load_collection(name)  # after a restart of Milvus none is
        return MilvusStore(self, kb_id, name, state["dim"], np.asarray(files.read_array(path / "dead.npy")))

    def create(self, client: Any, kb_id: int, dim: int) -> str:
        """A new collection for inner products; its name."""
        from pymilvus import DataType

        name = f"{self._of(kb_id)}{int(time.time()):x}_{uuid.uuid4().hex[:8]}"
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type="IP")
        client.create_collection(name, schema=schema, index_params=index)
        client.load_collection(name)
        return name

    def sweep(self, kb_id: int, folder: Path) -> None:
        """Drop the collections that no generation in ``folder`` names and that are old enough."""
        named = {(files.read_json_or_none(path) or {}).get("collection") for path in folder.glob(f"*/*/{STATE}")}
        with self.client() as client:
            for name in client.list_collections():
                if name.startswith(self._of(kb_id)) and name not in named:
                    made = int(name.removeprefix(self._of(kb_id)).split("_")[0], 16)
                    if time.time() - made > ORPHAN_SECONDS:
                        client.drop_collection(name)

    def drop(self, kb_id: int) -> None:
        """Drop all collections of a knowledge base."""
        with self.client() as client:
            for name in client.list_collections():
                if name.startswith(self._of(kb_id)):
                    client.drop_collection(name)

    def _of(self, kb_id: int) -> str:
        return f"{self.prefix}_{kb_id}_"
