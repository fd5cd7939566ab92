"""A headless Chromium driven through its DevTools protocol: just enough to look at a page."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip


def find_chromium() -> str | None:
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def chromium(path: str) -> Iterator[int]:
    """A browser of its own; gives the port of its DevTools."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            reader = threading.Thread(target=process.stderr.read, daemon=True)
            reader.start()
            yield urlsplit(line.split(" on ")[1].strip()).port or 0
        finally:
            process.terminate()
            process.wait(timeout=20)
            reader.join(timeout=5)
            process.stderr.close()


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requests: list[str] = []
        self.errors: list[str] = []

    async def listen(self) -> None:
        """Sort what the browser says; runs as a task."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
                continue
            details = said.get("params", {})
            match said["method"]:
                case "Network.requestWillBeSent":
                    self.requests.append(details["request"]["url"])
                case "Runtime.exceptionThrown":
                    self.errors.append(str(details["exceptionDetails"]))
                case "Log.entryAdded" if details["entry"]["level"] == "error":
                    self.errors.append(details["entry"]["text"])
                case "Runtime.consoleAPICalled" if details["type"] in ("error", "warning"):
                    self.errors.append(str(details["args"]))

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command of the protocol."""
        self._number += 1
        future = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        answer = await future
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def text(self, selector: str) -> str:
        """What an element shows."""
        found = await self.run(f"document.querySelector({selector!r})?.innerText ?? ''")
        assert isinstance(found, str)
        return found

    async def until(self, script: str) -> None:
        """Wait until an expression is true."""
        while not await self.run(f"Boolean({script})"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def open(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        """Load a page at a width."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def picture(self) -> bytes:
        """The whole page as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@contextlib.asynccontextmanager
async def tab(port: int) -> AsyncIterator[Tab]:
    """A fresh page, with its own cookies, closed afterwards."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/version") as answer:
            address = (await answer.json())["webSocketDebuggerUrl"]
        async with session.ws_connect(address, max_msg_size=0) as control:
            whole = Tab(control)
            listening = asyncio.create_task(whole.listen())
            context = (await whole.call("Target.createBrowserContext"))["browserContextId"]
            made = await whole.call("Target.createTarget", url="about:blank", browserContextId=context)
            page = f"ws://127.0.0.1:{port}/devtools/page/{made['targetId']}"
            async with session.ws_connect(page, max_msg_size=0) as socket:
                opened = Tab(socket)
                reading = asyncio.create_task(opened.listen())
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await opened.call(f"{domain}.enable")
                yield opened
            await reading
            await whole.call("Target.disposeBrowserContext", browserContextId=context)
        await listening
