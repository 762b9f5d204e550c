"""The command `chatgglm`: every package adds its own commands, this one serve, keys, sites and texts.

Nothing heavy is imported before a command runs: `chatgglm --help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gglm.console import err_console, fail, friendly_errors, print_json, progress, warn, write_stdout

if TYPE_CHECKING:
    from rag.service import Service
    from rag.settings import Settings
    from rag.store.session import Database

PACKAGES = ("gglm", "rag", "ingest")
GROUPS = {
    "kb": "Knowledge bases: list, create, delete, verify, rebuild.",
    "documents": "Documents: list, show, history, delete.",
    "jobs": "Ingestion jobs: list, show, cancel, retry, work.",
    "keys": "API keys: create, list, revoke.",
    "sites": "Web sites that may hold the chat widget: add, list, remove.",
    "eval": "Measure reading, retrieval and answers.",
    "train": "Train the generator's parts.",
}

app = typer.Typer(
    name="chatgglm",
    help="Chinese question answering over your own documents, with citations. No GPU, no other model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
groups = {name: typer.Typer(help=text, no_args_is_help=True) for name, text in GROUPS.items()}
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"chatgglm {version('chatgglm')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@friendly_errors
def serve(
    host: Annotated[str | None, typer.Option(help="Address; any but this machine's own needs a key.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free port.")] = None,
    guide: Annotated[bool, typer.Option(help="Put the user guide into an empty knowledge base.")] = True,
    access_log: Annotated[bool, typer.Option(help="Log every request.")] = False,
) -> None:
    """Start the server: API, chat page and widget."""
    import logging

    import uvicorn

    from api.origins import is_loopback
    from rag.settings import get_settings

    changed = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = get_settings().model_copy(update=changed)
    if not is_loopback(settings.host):
        _need_key(settings)
    listener = _listen(settings.host, settings.port)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "alembic", "faiss", "sentence_transformers"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    from api.app import create_app

    application = create_app(settings, prepare=_add_guide if guide else None)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    write_stdout(f"ChatGGLM: http://{shown}:{listener.getsockname()[1]}  (API: /docs, stop: Ctrl-C)\n")
    config = uvicorn.Config(
        application,
        access_log=access_log,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how one stops a server
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> Any:
    """A bound socket, or an error that says what to do."""
    import errno
    import socket

    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.set_inheritable(True)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fail(f"Port {port} is in use. Choose another one with --port, or stop the program that holds it.")
        fail(f"Cannot listen on {host}:{port}: {error.strerror or error}")
    return listener


def _need_key(settings: Settings) -> None:
    from api.auth import usable_key_exists

    with _database(settings).session() as session:
        if not usable_key_exists(session):
            fail(
                f"Other machines could reach {settings.host}, and there is no API key to ask them for. "
                "Make one first: chatgglm keys create NAME"
            )


def _add_guide(service: Service) -> None:
    """Puts the bundled guide into the default knowledge base if nothing is in it."""
    from ingest.guide import bundled
    from ingest.pipeline import ingest
    from rag.store.documents import list_documents
    from rag.store.kbs import get_kb

    with service.database.session() as session:
        if list_documents(session, get_kb(session, "default")):
            return
    ingest(service, [bundled()], kb="default")


def _database(settings: Settings | None = None) -> Database:
    from rag.settings import get_settings
    from rag.store.session import Database

    database = Database(settings or get_settings())
    database.migrate()
    return database


keys = groups["keys"]


@keys.command("create")
@friendly_errors
def keys_create(
    name: Annotated[str, typer.Argument(help="What the key is for.")] = "key",
    scope: Annotated[
        list[str] | None, typer.Option(help="ask, ingest or admin; repeatable. Default: ask and ingest.")
    ] = None,
    kb: Annotated[list[str] | None, typer.Option(help="Only for this knowledge base; repeatable.")] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key. It is shown once; from then on the server asks for a key."""
    from api.auth import create_key, key_to_dict

    with _database().session() as session:
        row, secret = create_key(session, name, scope or ("ask", "ingest"), kb or (), expires_days)
        document = {**key_to_dict(row), "key": secret}
    if as_json:
        print_json(document)
        return
    write_stdout(secret + "\n")
    err_console.print("Keep this key: it is not shown again. Use it as «Authorization: Bearer KEY».")


@keys.command("list")
@friendly_errors
def keys_list(as_json: JsonOption = False) -> None:
    """List the keys, without their secrets."""
    from api.auth import key_to_dict, list_keys

    with _database().session() as session:
        rows = [key_to_dict(row) for row in list_keys(session)]
    if as_json:
        print_json({"keys": rows})
        return
    for row in rows:
        state = "revoked" if row["revoked_at"] else f"expires {row['expires_at'] or 'never'}"
        limits = f" on {', '.join(row['kbs'])}" if row["kbs"] else ""
        write_stdout(f"{row['prefix']}  {row['name']}  [{', '.join(row['scopes'])}{limits}]  {state}\n")


@keys.command("revoke")
@friendly_errors
def keys_revoke(
    key: Annotated[str, typer.Argument(help="Id or prefix, as `keys list` shows it.")],
    as_json: JsonOption = False,
) -> None:
    """End a key at once."""
    from api.auth import key_to_dict, revoke_key

    with _database().session() as session:
        document = key_to_dict(revoke_key(session, key))
    if as_json:
        print_json(document)
    else:
        write_stdout(f"{document['prefix']} revoked\n")


sites = groups["sites"]


@sites.command("add")
@friendly_errors
def sites_add(
    origin: Annotated[str, typer.Argument(help="Such as https://www.example.com")],
    kb: Annotated[str, typer.Option(help="Knowledge base that its widget asks.")] = "default",
    as_json: JsonOption = False,
) -> None:
    """Let the pages of a web site hold the chat widget."""
    from api.auth import add_site, site_to_dict
    from rag.store.kbs import get_kb

    with _database().session() as session:
        get_kb(session, kb)
        site = site_to_dict(add_site(session, origin, kb))
    if as_json:
        print_json(site)
    else:
        write_stdout(f"{site['id']}  {site['origin']}  {site['kb']}\n")


@sites.command("list")
@friendly_errors
def sites_list(as_json: JsonOption = False) -> None:
    """List the web sites."""
    from api.auth import list_sites, site_to_dict

    with _database().session() as session:
        rows = [site_to_dict(site) for site in list_sites(session)]
    if as_json:
        print_json({"sites": rows})
        return
    for site in rows:
        write_stdout(f"{site['id']}  {site['origin']}  {site['kb']}\n")


@sites.command("remove")
@friendly_errors
def sites_remove(site: Annotated[str, typer.Argument(help="Id or origin.")]) -> None:
    """Take a web site off the list."""
    from api.auth import remove_site

    with _database().session() as session:
        remove_site(session, site)


FileArgument = Annotated[str | None, typer.Argument(metavar="FILE|-", help="A file; - reads stdin.")]
DocumentOption = Annotated[str | None, typer.Option("--document", help="Id of a stored document instead.")]


@app.command()
@friendly_errors
def summarize(file: FileArgument = None, document: DocumentOption = None, as_json: JsonOption = False) -> None:
    """Summarise a text."""
    text = _text(file, document)
    engine = _service().engine
    _show("summary", engine.summarize(text), engine.id, as_json)


@app.command()
@friendly_errors
def translate(
    file: FileArgument = None,
    document: DocumentOption = None,
    direction: Annotated[str, typer.Option(help="zh-en or en-zh.")] = "zh-en",
    as_json: JsonOption = False,
) -> None:
    """Translate a text, Chinese to English (experimental), or back with weights of your own."""
    if direction not in ("zh-en", "en-zh"):
        raise typer.BadParameter("zh-en or en-zh", param_hint="--direction")
    text = _text(file, document)
    way: Literal["zh-en", "en-zh"] = "zh-en" if direction == "zh-en" else "en-zh"
    engine = _service().translator(way)
    with progress() as bar:
        task = bar.add_task("Translating", total=len(text))
        made = engine.translate(text, direction=way, advance=lambda done: bar.update(task, completed=done))
    _show("translation", made, engine.id, as_json)
    if unsure := sum(not sentence.sure for sentence in made.sentences):
        warn(f"Experimental: {unsure} of {len(made.sentences)} sentences are unsure (--json says which).")


def _service() -> Service:
    """The parts that the settings name; the database is left alone."""
    from rag.service import Service
    from rag.settings import get_settings

    return Service(get_settings())


def _text(file: str | None, document: str | None) -> str:
    """The text of a file, of stdin or of a stored document."""
    if (file is None) == (document is None):
        raise typer.BadParameter("give a file (- for stdin) or --document ID")
    if document is not None:
        from api.auth import LOCAL
        from api.library import open_document, version_of

        with _database().session() as session:
            text = version_of(session, open_document(session, LOCAL, document)).text
    elif file == "-":
        text = sys.stdin.buffer.read().decode("utf-8", errors="replace")
    else:
        from ingest.formats import parse

        assert file is not None
        path = Path(file)
        if not path.is_file():
            fail(f"There is no file {file}.")
        text = parse(path, path.name).text
    if not text.strip():
        fail("The text is empty.")
    return text


def _show(key: str, made: Any, model: str, as_json: bool) -> None:
    from api.generating import generation_to_dict

    if as_json:
        print_json(generation_to_dict(key, made, model))
    else:
        write_stdout(made.text + "\n")


def _assemble() -> None:
    """Lets every package add its commands, then the groups that have any."""
    for package in PACKAGES:
        importlib.import_module(f"{package}.cli").register(app, groups)
    for name, group in groups.items():
        if group.registered_commands:
            app.add_typer(group, name=name)


_assemble()


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
