"""The tables. Times are milliseconds since the epoch; passwords and tokens stand here as digests only."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All tables of this service."""

    type_annotation_map: ClassVar[dict[object, object]] = {int: BigInteger(), str: String(64), bytes: LargeBinary()}


class User(Base):
    """A person's account. `username_key` is the name as compared: two that look alike to Unicode are one."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    username: Mapped[str]
    username_key: Mapped[str] = mapped_column(String(128), unique=True)
    display_name: Mapped[str] = mapped_column(String(128))
    password_hash: Mapped[str] = mapped_column(String(256))
    scopes: Mapped[str] = mapped_column(Text)
    created_ms: Mapped[int]


class Client(Base):
    """A program's account: a producer, a dashboard."""

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    secret_digest: Mapped[str]
    scopes: Mapped[str] = mapped_column(Text)
    created_ms: Mapped[int]


class Session(Base):
    """One login of one subject (a user or a client), until it expires or is revoked."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(index=True)
    begun_ms: Mapped[int]
    expires_ms: Mapped[int] = mapped_column(index=True)


class RefreshToken(Base):
    """One refresh token of a session's family.

    Attributes:
        used_ms: when it was exchanged; a token is exchanged once.
        nonce: with the token itself, what its successor is derived from, so that a client whose answer was lost can
            be given the same one again. Gone once the successor has been used.
        parent: digest of the token that this one succeeded.
    """

    __tablename__ = "refresh_tokens"

    digest: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), index=True)
    parent: Mapped[str | None]
    used_ms: Mapped[int | None] = mapped_column(index=True)
    nonce: Mapped[bytes | None]


class Revoked(Base):
    """The end of one session, or of all that one subject began up to `before_ms`; also its way to the edges.

    Attributes:
        published_ms: when the broker had it; NULL until then, and whichever replica sees that publishes it.
    """

    __tablename__ = "revocations"

    id: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(index=True)
    session_id: Mapped[str | None]
    before_ms: Mapped[int] = mapped_column(index=True)
    reason: Mapped[str] = mapped_column(String(128))
    published_ms: Mapped[int | None] = mapped_column(index=True)


class Attempts(Base):
    """How often something was tried of late, and when it may be tried again."""

    __tablename__ = "attempts"

    key: Mapped[str] = mapped_column(String(96), primary_key=True)
    count: Mapped[int]
    blocked_until_ms: Mapped[int]
    updated_ms: Mapped[int] = mapped_column(index=True)


class SigningKeyRow(Base):
    """A key that signs from `signs_from_ms` until the next one does. The private part stands here in PEM."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(primary_key=True)
    private_pem: Mapped[str] = mapped_column(Text)
    signs_from_ms: Mapped[int] = mapped_column(unique=True)
