"""Two writers at once, on SQLite and on PostgreSQL: they wait for one another, and neither fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rag.errors import NotFound
from rag.store.documents import delete_document, list_documents
from rag.store.kbs import get_kb
from tests.rag.world import World


def test_deleting_the_same_documents_in_opposite_orders(tmp_path: Path, database_url: str) -> None:
    world = World(tmp_path, database_url=database_url)
    ids = list(world.put({f"{number}.txt": f"第{number}篇" for number in range(3)}).values())
    outcomes: list[object] = []

    def delete(order: Sequence[str]) -> None:
        try:
            with world.database.session(write=True) as session:
                for document in order:
                    delete_document(session, document)
                    time.sleep(0.2)
            outcomes.append("deleted")
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=delete, args=(order,)) for order in (ids[:2], ids[1::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert outcomes[0] == "deleted"
    assert isinstance(outcomes[1], NotFound), "the other finds them gone"
    with world.database.session() as session:
        assert [row.path for row in list_documents(session, get_kb(session, "default"))] == ["2.txt"]
    world.database.close()
