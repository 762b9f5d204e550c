"""Where original files lie: a folder, or a bucket of any S3-compatible server. Each is named by its SHA-256."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import urlsplit

from rag.errors import InvalidInput, NotFound, StoreUnavailable
from rag.index.files import sync_folder, write_bytes

LEFTOVER_AGE_S = 24 * 3600
"""What a crash left half-written is deleted after that long."""


class FileStore(Protocol):
    """Whole files by SHA-256 (hexadecimal). A file is there completely or not at all."""

    def has(self, sha256: str) -> bool: ...

    def put(self, sha256: str, data: bytes) -> None:
        """Store a file; on the disk when this returns. Storing it again changes nothing."""

    def open(self, sha256: str) -> BinaryIO:
        """Its bytes. Raises `NotFound`."""

    def delete(self, sha256: str) -> None:
        """Forget a file; one that is not there is none to forget."""

    def names(self) -> Iterator[str]:
        """All that are there, in no order."""


def file_store(place: str, home: Path) -> FileStore | None:
    """The store that the setting ``originals`` names; None: ``off``.

    Args:
        place: ``home`` (``home``/originals), ``off``, ``s3://bucket/prefix`` or a folder.
        home: the data directory.

    Raises:
        InvalidInput: no such place can be, or the extra ``s3`` is not installed.
    """
    if place == "off":
        return None
    if place.startswith("s3://"):
        address = urlsplit(place)
        return S3Store(address.netloc, address.path.strip("/"))
    return FolderStore(home / "originals" if place == "home" else Path(place).expanduser())


class FolderStore:
    """The `FileStore` port on a file system: ``ab/abcd…``, written beside, fsynced and renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for left in root.glob("new-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > LEFTOVER_AGE_S:
                    left.unlink()

    def has(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    def put(self, sha256: str, data: bytes) -> None:
        """Raises `StoreUnavailable` where it cannot be written."""
        target = self._path(sha256)
        if target.is_file():
            return
        passing = self.root / f"new-{uuid.uuid4().hex}"
        try:
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                sync_folder(self.root)
            write_bytes(passing, data)
            os.replace(passing, target)
            sync_folder(target.parent)
        except OSError as error:
            raise StoreUnavailable(
                f"An original cannot be stored in {self.root}: {error.strerror or error}. Free some space, or set "
                "CHATGGLM_ORIGINALS to another folder or to off."
            ) from error
        finally:
            with contextlib.suppress(OSError):
                passing.unlink()

    def open(self, sha256: str) -> BinaryIO:
        try:
            return self._path(sha256).open("rb")
        except OSError as error:
            raise _gone(sha256) from error

    def delete(self, sha256: str) -> None:
        with contextlib.suppress(OSError):  # what Windows keeps open goes the next time
            self._path(sha256).unlink()

    def names(self) -> Iterator[str]:
        for path in self.root.glob("[0-9a-f][0-9a-f]/*"):
            if len(path.name) == 64:
                yield path.name

    def _path(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256


class S3Store:
    """The `FileStore` port on a bucket. Address and credentials come from ``AWS_ENDPOINT_URL``,
    ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_REGION``, or from boto3's own files."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        try:
            import boto3
            from botocore.config import Config
        except ModuleNotFoundError:
            raise InvalidInput("CHATGGLM_ORIGINALS names a bucket: pip install 'chatgglm[s3]'.") from None
        if not bucket:
            raise InvalidInput("CHATGGLM_ORIGINALS: write s3://BUCKET or s3://BUCKET/PREFIX.")
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        with self._understandable():
            self._client: Any = boto3.client(
                "s3",
                region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
                config=Config(
                    connect_timeout=10,
                    retries={"max_attempts": 3, "mode": "standard"},
                    request_checksum_calculation="when_required",  # not every compatible server knows the others
                    response_checksum_validation="when_required",
                ),
            )

    def has(self, sha256: str) -> bool:
        try:
            with self._understandable():
                self._client.head_object(Bucket=self.bucket, Key=self.prefix + sha256)
        except NotFound:
            return False
        return True

    def put(self, sha256: str, data: bytes) -> None:
        if not self.has(sha256):
            with self._understandable():
                self._client.put_object(Bucket=self.bucket, Key=self.prefix + sha256, Body=data)

    def open(self, sha256: str) -> BinaryIO:
        with self._understandable():
            answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + sha256)
        return cast("BinaryIO", answer["Body"])

    def delete(self, sha256: str) -> None:
        with self._understandable():
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + sha256)

    def names(self) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        with self._understandable():
            for page in pages:
                for entry in page.get("Contents", ()):
                    name = entry["Key"].removeprefix(self.prefix)
                    if len(name) == 64:
                        yield name

    @contextlib.contextmanager
    def _understandable(self) -> Iterator[None]:
        """Turns boto3's errors into ours: `NotFound`, or `StoreUnavailable` that says what to check."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if code in ("404", "NoSuchKey", "NotFound"):
                raise _gone("") from error
            raise self._unavailable(code) from error
        except (BotoCoreError, ValueError) as error:
            raise self._unavailable(str(error)) from error

    def _unavailable(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"The bucket {self.bucket} for originals cannot be used ({reason}). Check CHATGGLM_ORIGINALS, "
            "AWS_ENDPOINT_URL, the AWS_… credentials, and that the bucket exists."
        )


def _gone(sha256: str) -> NotFound:
    return NotFound(f"The original file {sha256[:12]} is not in the file store.")
