"""Why a source gives no document. Each message is for the person who owns the file."""

from __future__ import annotations

from gglm.errors import UserError


class SourceError(UserError):
    """A source that gives no document; the rest of the batch goes on."""

    status = "failed"
    """What the job item becomes: ``failed`` (something was lost) or ``skipped`` (nothing was)."""
    passing = False
    """Whether the cause may pass by itself, so that it is worth another try."""


class MissingSource(SourceError):
    """The path does not exist or cannot be read."""


class BusySource(MissingSource):
    """It cannot be read just now: a lock, a network share that does not answer."""

    passing = True


class UnsupportedFormat(SourceError):
    """No parser for this kind of file."""


class DamagedFile(SourceError):
    """The file cannot be read as what it says it is."""


class EncryptedFile(SourceError):
    """The file is protected by a password."""


class NoText(SourceError):
    """The file holds pages or pictures, yet no text that could be indexed (a scan, for instance)."""


class EmptyFile(SourceError):
    """No bytes, or nothing but white space."""

    status = "skipped"
