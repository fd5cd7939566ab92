"""A client on a real socket, in front of services that are up and well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp.test_utils import TestClient
from aiohttp.web import Application, Request
from pytest_aiohttp.plugin import AiohttpClient

from kiki_agent.web import Services, create_app

from .fakes import services as well

Client = TestClient[Request, Application]


@pytest.fixture
def services() -> Services:
    return well()


@pytest.fixture
async def client(services: Services, aiohttp_client: AiohttpClient) -> Client:
    return await aiohttp_client(create_app(services))


@pytest.fixture
def client_for(aiohttp_client: AiohttpClient) -> Callable[[Services], Awaitable[Client]]:
    async def make(services: Services) -> Client:
        return await aiohttp_client(create_app(services))

    return make
