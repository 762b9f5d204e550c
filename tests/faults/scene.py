"""Documents that can be told apart, the acts that may be interrupted, and what must hold afterwards.

Every content of a document has a code word of its own, so that one search tells whether exactly that content can be
found. An `Act` is a real command line; `Scene.check` is what must hold whenever and however it was interrupted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.process import Command, Ended, Zygote

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

State = dict[str, int]
"""Which version of each live document is there."""


def code_word(path: str, version: int) -> str:
    """A word that only this content holds."""
    return f"ZK{int(path[:3]):03d}V{version}Q"


def write(folder: Path, path: str, version: int) -> None:
    """A document of three sections and a few chunks."""
    folder.mkdir(parents=True, exist_ok=True)
    code = code_word(path, version)
    filler = "本制度适用于全体员工，由人力资源部负责解释。出差应当事先申请并经部门负责人批准，费用凭票据报销。"
    parts = [f"第{number}节 {code}\n\n编号 {code}，第{version}版。" + filler * 4 for number in range(1, 4)]
    (folder / path).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Act:
    """A command that may be interrupted: what it changes on the disk first, and what it may leave."""

    name: str
    argv: tuple[str, ...]
    change: Mapping[str, int | None] = field(default_factory=dict)
    """By document the version that it brings; None: the document goes."""
    batch: int = 3
    seal: int = 0
    edits_files: bool = True

    def prepare(self, folder: Path) -> None:
        """Make the change in the folder that is ingested."""
        for path, version in self.change.items() if self.edits_files else ():
            if version is None:
                (folder / path).unlink(missing_ok=True)
            else:
                write(folder, path, version)

    def after(self, before: State) -> State:
        """The state once it is done."""
        state: dict[str, int | None] = {**before, **self.change}
        return {path: version for path, version in state.items() if version is not None}


def names(first: int, count: int) -> list[str]:
    """Paths of documents."""
    return [f"{number:03d}.{'md' if number % 2 else 'txt'}" for number in range(first, first + count)]


OLD, NEW = names(0, 10), names(100, 8)
BEFORE: State = dict.fromkeys(OLD, 1)
ACTS = {
    act.name: act
    for act in (
        Act("ingest", ("ingest", "FOLDER", "--workers", "1"), dict.fromkeys(NEW, 1)),
        Act(
            "replace",
            ("ingest", "FOLDER", "--sync", "--workers", "1"),
            dict.fromkeys(OLD[:5], 2) | dict.fromkeys(OLD[8:], None),
        ),
        Act("force", ("ingest", "FOLDER", "--force", "--workers", "1")),
        Act("delete", ("documents", "delete", *OLD[:4], "--yes"), dict.fromkeys(OLD[:4], None), edits_files=False),
        # One publication a document; small segments are merged by it, those of four chunks in the background.
        Act("merge", ("ingest", "FOLDER", "--workers", "1"), dict.fromkeys([*NEW[:4], *OLD[:2]], 2), batch=1, seal=4),
        Act("rebuild", ("kb", "rebuild")),
    )
}


class Scene:
    """An installation (data folder and database) that can be copied; all copies ingest the same folder beside them."""

    def __init__(self, zygote: Zygote, folder: Path, postgres: PostgresServer | None, url: str = "") -> None:
        self.zygote = zygote
        self.folder = folder
        self.home = folder / "home"
        self.documents = folder.parent / "documents"  # `--sync` knows a folder by its place
        self.postgres = postgres
        self.url = url or (postgres.database() if postgres else "")
        self._count = 0

    @classmethod
    def begun(cls, zygote: Zygote, folder: Path, postgres: PostgresServer | None) -> Scene:
        """A new installation that holds `BEFORE`, in several segments."""
        scene = cls(zygote, folder, postgres)
        scene.reset_documents()
        ended = scene.run("ingest", str(scene.documents), "--workers", "1", batch=4)
        assert ended.code == 0, ended.stderr
        return scene

    def reset_documents(self) -> None:
        """Make the folder of documents that of `BEFORE`."""
        shutil.rmtree(self.documents, ignore_errors=True)
        for path, version in BEFORE.items():
            write(self.documents, path, version)

    def copied(self, name: str, tablespace: str = "pg_default") -> Scene:
        """The same installation once more, to be ruined; the documents are those of `BEFORE` again.

        Its database lies in ``tablespace`` where that is PostgreSQL's.
        """
        folder = self.folder.with_name(name)
        shutil.copytree(self.folder, folder)
        self.reset_documents()
        url = self.postgres.database(self.url.split("@/")[1].split("?")[0], tablespace) if self.postgres else ""
        return Scene(self.zygote, folder, self.postgres, url)

    def drop(self) -> None:
        """Delete it."""
        shutil.rmtree(self.folder)
        if self.postgres:
            self.postgres.execute(f'DROP DATABASE "{self.url.split("@/")[1].split("?")[0]}" WITH (FORCE)')

    @property
    def environment(self) -> dict[str, str]:
        return {"CHATGGLM_HOME": str(self.home), "CHATGGLM_DATABASE_URL": self.url, "OMP_NUM_THREADS": "1"}

    def command(self, *argv: str, batch: int = 0) -> Command:
        """A command on this installation; ``FOLDER`` stands for its documents."""
        self._count += 1
        filled = tuple(str(self.documents) if word == "FOLDER" else word for word in argv)
        return Command(filled, self.environment, self.folder / "runs" / str(self._count), batch=batch)

    def run(self, *argv: str, batch: int = 0) -> Ended:
        """A command to its end."""
        return self.zygote.run(self.command(*argv, batch=batch))

    def perform(self, act: Act, *, die_at: int = -1, kill_after: float | None = None) -> Ended:
        """An act, killed at a step or after a time."""
        command = replace(self.command(*act.argv, batch=act.batch), seal=act.seal, die_at=die_at)
        return self.zygote.run(command, kill_after)

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check(self, before: State, after: State, settled: int = 0) -> State:
        """Each document is as before or as after the act, found exactly as it is; index and rows agree.

        ``settled``: how many of the act's documents had been acknowledged.

        Returns:
            The state found.

        Raises:
            AssertionError: something is lost, half, or found although it is gone.
        """
        report = self.run("kb", "verify", "--json")
        assert report.code == 0, (report.stdout, report.stderr)
        state = self.state()
        for path in before.keys() | after.keys():
            assert state.get(path) in (before.get(path), after.get(path)), f"{path}: {state.get(path)}"
        assert state.keys() <= before.keys() | after.keys()
        # A document counts as settled when it is indexed or found unchanged; a run settles each once.
        done = sum(state.get(path) == after.get(path) for path in after)
        assert done >= settled, f"{settled} documents were acknowledged, {done} are there"
        return state

    def state(self) -> State:
        """The version of each live document, after a look at every code word that was ever written.

        Raises:
            AssertionError: a live content cannot be found, or one that is gone can.
        """
        from rag.retrieve import Retriever
        from rag.service import Service
        from rag.settings import Settings
        from rag.store.documents import list_documents, live_version
        from rag.store.kbs import get_kb

        service = Service(Settings(home=self.home, database_url=self.url))
        try:
            with service.database.session() as session:
                kb = get_kb(session, "default")
                rows = [(row.path, live_version(session, kb, row.path)) for row in list_documents(session, kb)]
                texts = {path: version.text for path, version in rows if version is not None}
            state = {path: next(v for v in (1, 2) if code_word(path, v) in text) for path, text in texts.items()}
            retriever = Retriever(service.database, service.indexes, service.embedder, None, service.settings)
            for path in {*OLD, *NEW}:
                for version in (1, 2):
                    code = code_word(path, version)
                    found = any(code in p.text for p in retriever.search(code, k=5, rerank=False))
                    live = state.get(path) == version
                    assert found == live, f"{code} is {'lost' if live else 'found although it is gone'}"
            return state
        finally:
            service.database.close()

    def leftovers(self) -> list[str]:
        """What interrupted writers left in the index folder."""
        return [path.name for path in (self.home / "indexes").glob("*/new-*")]


def trial(start: Scene, act: Act, name: str, interrupt: Callable[[Scene], Ended]) -> tuple[Ended, State]:
    """One interruption in a fresh copy of the scene, with all that must hold then and after doing it again.

    Raises:
        AssertionError: durability is broken; the folder stays for a look.
    """
    scene = start.copied(name)
    act.prepare(scene.documents)
    ended = interrupt(scene)
    assert ended.code in (-9, 0), ended.stderr
    after = act.after(BEFORE)
    state = scene.check(BEFORE, after, ended.settled if act.argv[0] == "ingest" else 0)
    if ended.code == 0:
        assert state == after, "it said that it was done"
    argv = act.argv
    if act.name == "delete":
        gone = [path for path in act.change if path in state]
        argv = ("documents", "delete", *gone, "--yes") if gone else ("kb", "rebuild")
    again = scene.run(*argv, batch=act.batch)
    assert again.code == 0, again.stderr
    assert scene.check(after, after) == after, "doing it again completes it"
    if scene.leftovers():  # there was nothing left to publish
        assert scene.run("kb", "rebuild").code == 0
    assert not scene.leftovers(), "whoever publishes sweeps up"
    scene.drop()
    return ended, state
