"""Keys, scopes, expiry, widget visitors: against the running application and its database."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest

from api import auth
from api.models import ApiKey
from rag.errors import InvalidInput, NotFound
from rag.settings import Settings
from rag.store.base import now
from rag.store.kbs import get_or_create_kb
from rag.store.session import Database
from tests.api.conftest import BASE, StoreOnly, running

pytestmark = pytest.mark.anyio
SITE = "https://www.example.com"


def make_key(database: Database, **options: object) -> str:
    with database.session() as session:
        return auth.create_key(session, "test", **options)[1]  # type: ignore[arg-type]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(autouse=True)
def kbs(database: Database) -> None:
    with database.session() as session:
        get_or_create_kb(session, "default")
        get_or_create_kb(session, "hr", name="人事")


async def test_without_keys_loopback_is_open_and_any_authorization_is_ignored(client: httpx.AsyncClient) -> None:
    for headers in ({}, bearer("sk-anything"), bearer("cgw-forged.token"), {"Authorization": "Basic eDp5"}):
        response = await client.get("/v1/knowledge_bases", headers=headers)
        assert response.status_code == 200
    assert (await client.get("/v1/keys")).status_code == 200


async def test_without_keys_other_machines_and_proxies_are_refused(settings: Settings, database: Database) -> None:
    async with running(settings, StoreOnly(settings, database), peer="192.168.1.9") as distant:
        refused = await distant.get("/v1/knowledge_bases")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert (await distant.get("/healthz")).status_code == 200
    async with running(settings, StoreOnly(settings, database)) as local:
        proxied = await local.get("/v1/knowledge_bases", headers={"X-Forwarded-For": "1.2.3.4"})
        assert proxied.status_code == 401


async def test_with_a_key_every_request_needs_it(client: httpx.AsyncClient, database: Database) -> None:
    key = make_key(database)
    assert key.startswith("cg-")
    assert (await client.get("/v1/models")).status_code == 401
    assert "error" in (await client.get("/v1/models")).json()
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
    assert (await client.get("/v1/models", headers={"Authorization": f"bearer  {key} "})).status_code == 200
    for wrong in (key[:-1], key + "x", key[:11] + "-" + "A" * 43, "sk-x", "", "键"):
        response = await client.get("/v1/models", headers={"Authorization": f"Bearer {wrong}".encode()})
        assert response.status_code == 401, wrong
        assert response.json()["error"]["code"] == "invalid_api_key"
    with database.session() as session:
        (row,) = auth.list_keys(session)
        assert key not in (row.sha256, row.prefix)
        assert row.last_used_at is not None


async def test_scopes(client: httpx.AsyncClient, database: Database) -> None:
    ask, ingest, admin = (make_key(database, scopes=[scope]) for scope in auth.SCOPES)
    body = {"slug": "new"}
    assert (await client.post("/v1/knowledge_bases", json=body, headers=bearer(ask))).status_code == 403
    assert (await client.post("/v1/knowledge_bases", json=body, headers=bearer(ingest))).status_code == 201
    assert (await client.get("/v1/conversations", headers=bearer(ingest))).status_code == 403
    assert (await client.get("/v1/keys", headers=bearer(ask))).status_code == 403
    for path in ("/v1/keys", "/v1/conversations", "/v1/knowledge_bases"):
        assert (await client.get(path, headers=bearer(admin))).status_code == 200


async def test_a_key_for_one_knowledge_base_sees_no_other(client: httpx.AsyncClient, database: Database) -> None:
    headers = bearer(make_key(database, kbs=["hr"]))
    listed = (await client.get("/v1/knowledge_bases", headers=headers)).json()["data"]
    assert [kb["slug"] for kb in listed] == ["hr"]
    models = (await client.get("/v1/models", headers=headers)).json()["data"]
    assert [model["id"] for model in models] == ["chatgglm", "chatgglm/hr"]
    assert (await client.get("/v1/knowledge_bases/default", headers=headers)).status_code == 403
    assert (await client.get("/v1/models/chatgglm/default", headers=headers)).status_code == 404
    made = await client.post("/v1/conversations", json={}, headers=headers)
    assert made.json()["kb"] == "hr"
    assert (await client.post("/v1/conversations", json={"kb": "default"}, headers=headers)).status_code == 403


async def test_expired_and_revoked_keys_open_nothing(client: httpx.AsyncClient, database: Database) -> None:
    key = make_key(database, expires_days=1)
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
    with database.session() as session:
        row = session.query(ApiKey).one()
        row.expires_at = now() - timedelta(seconds=1)
    expired = await client.get("/v1/models", headers=bearer(key))
    assert expired.status_code == 401
    assert "expired" in expired.json()["error"]["message"]
    assert (await client.get("/v1/models")).status_code == 401  # expiry does not open the server
    other = make_key(database)
    with database.session() as session:
        auth.revoke_key(session, other[:11])
    revoked = await client.get("/v1/models", headers=bearer(other))
    assert revoked.status_code == 401
    assert "revoked" in revoked.json()["error"]["message"]


async def test_keys_by_api(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/keys", json={"name": "博客", "scopes": ["admin"], "expires_days": 30})
    assert made.status_code == 201
    headers = bearer(made.json()["key"])
    (row,) = (await client.get("/v1/keys", headers=headers)).json()["data"]
    assert "key" not in row
    assert "sha256" not in row
    assert row["name"] == "博客"
    assert row["expires_at"] > row["created_at"]
    assert (await client.delete(f"/v1/keys/{row['id']}", headers=headers)).status_code == 204
    assert (await client.get("/v1/keys")).status_code == 200  # no key is left: open again
    unknown = await client.post("/v1/keys", json={"name": "x", "scopes": ["root"]})
    assert unknown.status_code == 422


def test_key_functions(database: Database) -> None:
    with database.session() as session:
        with pytest.raises(InvalidInput, match="Scopes are"):
            auth.create_key(session, "x", scopes=["everything"])
        with pytest.raises(NotFound, match="no key"):
            auth.revoke_key(session, "cg-nothing")
        assert not auth.keys_exist(session)
        assert not auth.usable_key_exists(session)
        row, _ = auth.create_key(session, "x")
        assert auth.usable_key_exists(session)
        auth.revoke_key(session, row.id)
        assert not auth.usable_key_exists(session)


class TestVisitors:
    def add_site(self, database: Database, kb: str = "hr") -> str:
        with database.session() as session:
            return auth.add_site(session, SITE, kb).id

    async def open(self, client: httpx.AsyncClient, origin: str = SITE, **body: str) -> httpx.Response:
        return await client.post("/v1/widget/sessions", json=body, headers={"Origin": origin})

    async def test_a_registered_page_gets_a_token_for_its_knowledge_base(
        self, client: httpx.AsyncClient, database: Database
    ) -> None:
        site = self.add_site(database)
        make_key(database)
        session = await self.open(client, site=site)
        assert session.status_code == 201
        assert session.headers["access-control-allow-origin"] == SITE
        assert session.json()["kb"] == "hr"
        headers = {"Origin": SITE, **bearer(session.json()["token"])}
        made = await client.post("/v1/conversations", json={}, headers=headers)
        assert made.status_code == 201
        assert made.json()["kb"] == "hr"
        assert (await client.post("/v1/conversations", json={"kb": "default"}, headers=headers)).status_code == 403
        assert (await client.get("/v1/documents", headers=headers)).status_code == 403
        assert (await client.get("/v1/keys", headers=headers)).status_code == 403

    async def test_other_pages_get_none(self, client: httpx.AsyncClient, database: Database) -> None:
        site = self.add_site(database)
        assert (await self.open(client, "https://evil.example", site=site)).status_code == 403
        assert (await self.open(client, "https://evil.example")).status_code == 403
        assert (await self.open(client, SITE, site="no-such-site")).status_code == 403

    async def test_a_registered_page_without_token_is_not_the_user_of_this_machine(
        self, client: httpx.AsyncClient, database: Database
    ) -> None:
        self.add_site(database)
        for headers in ({"Origin": SITE}, {"Origin": SITE, **bearer("sk-x")}, {"Origin": SITE, **bearer("cgw-x.y")}):
            assert (await client.get("/v1/conversations", headers=headers)).status_code == 401

    async def test_a_token_is_bound_to_its_origin_and_site(self, client: httpx.AsyncClient, database: Database) -> None:
        site = self.add_site(database)
        make_key(database)
        token = (await self.open(client, site=site)).json()["token"]
        with database.session() as session:
            auth.add_site(session, "https://other.example", "hr")
        other = {"Origin": "https://other.example", **bearer(token)}
        assert (await client.get("/v1/conversations", headers=other)).status_code == 401
        assert (await client.get("/v1/conversations", headers=bearer(token))).status_code == 200
        with database.session() as session:
            auth.remove_site(session, SITE)
        assert (await client.get("/v1/conversations", headers=bearer(token))).status_code == 401

    async def test_forged_and_old_tokens(
        self, client: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = self.add_site(database)
        make_key(database)
        first = (await self.open(client, site=site)).json()
        body, _, mac = first["token"].removeprefix("cgw-").partition(".")
        other = f"cgw-{body}.{mac[:-1]}{'1' if mac[-1] == '0' else '0'}"
        for forged in (other, "cgw-.", f"cgw-{body}.", f"cgw-{body}"):
            assert (await client.get("/v1/conversations", headers=bearer(forged))).status_code == 401
        real = auth.time.time()
        monkeypatch.setattr(auth.time, "time", lambda: real + auth.TOKEN_SECONDS + 1)
        assert (await client.get("/v1/conversations", headers=bearer(first["token"]))).status_code == 401
        renewed = (await self.open(client, site=site, token=first["token"])).json()
        assert renewed["visitor"] == first["visitor"]
        assert (await client.get("/v1/conversations", headers=bearer(renewed["token"]))).status_code == 200

    async def test_the_servers_own_page_needs_no_site_on_this_machine(
        self, client: httpx.AsyncClient, settings: Settings, database: Database
    ) -> None:
        make_key(database)
        own = await self.open(client, BASE)
        assert own.status_code == 201
        assert own.json()["kb"] == "default"
        async with running(settings, StoreOnly(settings, database), peer="10.0.0.7") as distant:
            assert (await self.open(distant, BASE)).status_code == 403

    async def test_visitors_see_their_own_conversations_only(
        self, client: httpx.AsyncClient, database: Database
    ) -> None:
        site = self.add_site(database)
        make_key(database)
        one, two = [bearer((await self.open(client, site=site)).json()["token"]) for _ in range(2)]
        made = (await client.post("/v1/conversations", json={}, headers=one)).json()["id"]
        assert (await client.get(f"/v1/conversations/{made}", headers=one)).status_code == 200
        assert (await client.get(f"/v1/conversations/{made}", headers=two)).status_code == 404
        assert (await client.get("/v1/conversations", headers=two)).json()["data"] == []
        assert (await client.delete(f"/v1/conversations/{made}", headers=two)).status_code == 404

    def test_origins(self, database: Database) -> None:
        with database.session() as session:
            first = auth.add_site(session, "HTTPS://Www.Example.com:443/", "hr")
            assert first.origin == SITE
            assert auth.add_site(session, SITE, "hr").id == first.id
            for bad in ("www.example.com", "https://www.example.com/page", "ftp://x", "null", "*", ""):
                with pytest.raises(InvalidInput, match="is not a web origin"):
                    auth.add_site(session, bad, "hr")
