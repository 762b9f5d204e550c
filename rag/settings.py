"""The one settings object: ``CHATGGLM_*`` variables, then ``chatgglm.toml``, then these defaults."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

CHUNK_LEAST, CHUNK_MOST = 40, 2000
"""Bounds of the sizes of chunks, in tokens."""


class Settings(BaseSettings):
    """All that can be set. Unsafe or senseless values are refused with a message.

    Raises:
        pydantic.ValidationError: a value is out of range or of the wrong type.
    """

    model_config = SettingsConfigDict(env_prefix="CHATGGLM_", toml_file="chatgglm.toml", extra="ignore")

    home: Path = Path("~/.local/share/chatgglm")
    """Data directory: the SQLite file, index generations, originals."""
    database_url: str = ""
    """Empty: SQLite in ``home``. ``postgresql+psycopg://…`` moves everything to PostgreSQL."""
    originals: str = "home"
    """Where the files that documents were made from are kept: ``home`` (in ``home``/originals), another folder,
    ``s3://bucket/prefix`` on any S3-compatible server, or ``off``."""
    milvus_uri: str = ""
    """Empty: vectors in files of ``home``. ``http://host:19530`` moves them to Milvus; a file name that ends in ``.db``
    is Milvus Lite's, for one process at a time. After a change: `chatgglm kb rebuild`."""
    milvus_token: SecretStr = SecretStr("")
    """``user:password`` or an API key."""
    milvus_prefix: str = Field(default="chatgglm", pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=60)
    """What the names of our collections begin with; installations that share a Milvus need different ones."""
    embedder: str = "gglm-embed-zh"
    """Our own, or any sentence-transformers name or folder."""
    reader: str = "gglm"
    """``gglm``, ``openai:MODEL@URL`` or ``hf:NAME``."""
    reader_weights: Path | None = None
    """Folder of other GGLM weights; empty: the shipped ones."""
    translator_weights: Path | None = None
    """Folder of GGLM weights for translations; empty: ``reader_weights`` if these can translate, else the shipped."""
    threads: int = Field(default=1, ge=1, le=64)
    top_k: int = Field(default=4, ge=1, le=20)
    """Passages that the reader reads."""
    candidates: int = Field(default=30, ge=1, le=500)
    """Chunks that each index brings in before fusion and reranking."""
    rerank: int = Field(default=8, ge=0, le=100)
    """Passages, at most, that the reader's relevance reorders where several are near the best; 0: none."""
    hnsw_from: int = Field(default=30_000, ge=4096)
    """Vectors from which on an index segment is a graph (HNSW) rather than compared one by one …"""
    ivf_from: int = Field(default=120_000, ge=4096)
    """… and inverted lists (IVF). Segments hold at most 262,144 vectors (docs/decisions/014)."""
    answerable_threshold: float | None = Field(default=None, ge=0, le=1)
    """Refuse below this probability; empty: the reader's own judgement (for GGLM docs/decisions/016)."""
    supporting_sentence: bool = True
    """What a person reads adds the sentence that supports the answer."""
    max_question_chars: int = Field(default=2000, ge=10, le=100_000)
    max_upload_mb: int = Field(default=100, ge=1, le=10_000)
    max_document_mb: int = Field(default=512, ge=1, le=100_000)
    """Largest file, member of an archive, or Office file unpacked, that is ingested."""
    max_pages: int = Field(default=20_000, ge=1, le=1_000_000)
    """Most pages of a PDF or picture file."""
    max_archive_mb: int = Field(default=4096, ge=1, le=1_000_000)
    """What an archive may expand to, archives within it included."""
    max_archive_files: int = Field(default=50_000, ge=1, le=10_000_000)
    max_archive_depth: int = Field(default=3, ge=1, le=10)
    """1: an archive within an archive is refused."""
    parse_timeout_s: float = Field(default=180, ge=1, le=86_400)
    """Seconds that parsing one document may take …"""
    parse_timeout_s_per_mb: float = Field(default=60, ge=0, le=3600)
    """… and as many more for each MB of it."""
    parse_memory_mb: int = Field(default=4096, ge=256, le=1_000_000)
    """Address space of one parsing process (on Linux)."""
    chunk_target: int = Field(default=380, ge=CHUNK_LEAST, le=CHUNK_MOST)
    """Tokens of the generator that a chunk should have (one a Han character). A knowledge base whose sizes were
    given to `chatgglm ingest` keeps those."""
    chunk_max: int = Field(default=480, ge=CHUNK_LEAST, le=CHUNK_MOST)
    """… and that none exceeds: what the reader reads at once."""
    chunk_overlap: int = Field(default=0, ge=0, le=CHUNK_MOST // 2)
    """Up to so many are repeated from the chunk before, in whole sentences of the same section."""
    ocr: bool = True
    """Read pictures and scanned pages where the extra ``ocr`` is installed."""
    max_body_kb: int = Field(default=2048, ge=16, le=1_000_000)
    """Largest JSON body of a request."""
    host: str = "127.0.0.1"
    """Address that the server listens on; any other than this machine's own needs an API key."""
    port: int = Field(default=8000, ge=0, le=65_535)
    allowed_hosts: list[str] = []
    """Further names under which the server may be reached (``docs.example.com``), for a proxy in front."""
    workers: int = Field(default=2, ge=1, le=64)
    """Requests that the models work on at the same time."""
    queue: int = Field(default=32, ge=0, le=10_000)
    """Requests that may wait for the models; further ones get 503 and Retry-After."""
    per_client: int = Field(default=32, ge=1, le=1000)
    """Requests that one client may have under way; further ones get 429 and Retry-After."""
    queue_timeout_s: float = Field(default=60, gt=0, le=3600)
    """How long a request waits for the models before it gets 503."""

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _chunk_sizes_fit(self) -> Self:
        if self.chunk_target > self.chunk_max:
            raise ValueError(f"chunk_target {self.chunk_target} is more than chunk_max {self.chunk_max}")
        if self.chunk_overlap > self.chunk_target // 2:
            raise ValueError(
                f"chunk_overlap {self.chunk_overlap} is more than half of chunk_target {self.chunk_target}"
            )
        return self

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the store."""
        return self.database_url or f"sqlite:///{self.home / 'chatgglm.db'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
