"""The access token that is kept in a file (`http.token_file`): read, and made once where there is none yet."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from pydantic import SecretStr

from kiki_agent.config.checks import MIN_TOKEN_LENGTH
from kiki_agent.config.load import Loaded
from kiki_agent.config.settings import HttpSettings
from kiki_agent.errors import ConfigError, Finding

_KEY = "http.token_file"
_RANDOM_BYTES = 32
"""256 bits, 43 characters."""
_LONGEST = 4_096


@dataclass(frozen=True, slots=True)
class KeptToken:
    """A token that came out of its file."""

    file: Path
    made: bool
    """True for the start that made it: the one time it may be shown."""


def read_token(http: HttpSettings) -> SecretStr | None:
    """The token callers need: `http.token`, else what its file holds; None without either. Raises ConfigError."""
    if http.token is not None or http.token_file is None:
        return http.token
    return _read(Path(http.token_file))


def with_token(loaded: Loaded) -> tuple[Loaded, KeptToken | None]:
    """The settings with `http.token` filled from its file, which is made with a fresh token when it does not exist.

    None beside them when no file is in use: `http.token` wins over it. Raises ConfigError when the file cannot be made
    or holds no token.
    """
    http = loaded.settings.http
    if http.token is not None or http.token_file is None:
        return loaded, None
    file = Path(http.token_file)
    made = False
    token = _read(file)
    if token is None:
        made = _make(file)
        token = _read(file)
    if token is None:
        raise _finding(file, "was removed while it was being read; start again")
    settings = loaded.settings.model_copy(update={"http": http.model_copy(update={"token": token})})
    sources = MappingProxyType({**loaded.sources, "http.token": str(file)})
    return replace(loaded, settings=settings, sources=sources), KeptToken(file, made)


def _read(file: Path) -> SecretStr | None:
    """What the file holds, without white space around it; None when there is no such file."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(_LONGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _finding(file, f"cannot be read: {error.strerror}; make it readable for the agent") from error
    token = raw.strip()
    if not token:
        raise _finding(file, "is empty; remove it, and the next start makes a token")
    if len(raw) > _LONGEST or any(not 0x21 <= byte <= 0x7E for byte in token):
        raise _finding(file, "expected one line of visible ASCII characters and nothing else")
    if len(token) < MIN_TOKEN_LENGTH:
        raise _finding(file, f"found {len(token)} characters, expected a secret text of at least {MIN_TOKEN_LENGTH}")
    return SecretStr(token.decode("ascii"))


def _make(file: Path) -> bool:
    """Write a fresh token, readable for this user alone; the file is whole or absent. False when another was faster."""
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, secrets.token_urlsafe(_RANDOM_BYTES).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(beside, file)  # unlike a rename it never replaces a token that somebody uses already
        except FileExistsError:
            return False
        finally:
            beside.unlink()
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        message = f"cannot be made: {error.strerror}; make its folder writable for the agent, or set http.token"
        raise _finding(file, message) from error
    return True


def _finding(file: Path, message: str) -> ConfigError:
    return ConfigError([Finding(str(file), _KEY, message)])
