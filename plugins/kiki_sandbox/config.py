"""Settings of one instance."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from kiki_agent import PluginConfig


class SandboxConfig(PluginConfig):
    """Keys of a `[connector.<id>]` or `[crm.<id>]` table with `plugin = "sandbox"`."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+$")] = "http://127.0.0.1:8099"
    """Where the sandbox listens; the demo fills it in."""
    client_id: str = "sandbox"
    client_secret: SecretStr = SecretStr("sandbox")
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    page_size: Annotated[int, Field(ge=1, le=500)] = 500
