"""Alembic's entry: runs inside the transaction that `services.auth.migrate` has begun."""

from __future__ import annotations

from alembic import context

from services.auth.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
