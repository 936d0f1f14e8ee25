"""Looks at the site in headless Chromium: pictures of pages, and checks of what a reader does.

    python docs/tools/screenshots.py FOLDER [PAGE ...]    after make docs; Chromium has to be there

Each page is taken on a wide screen, light and dark, and on a narrow one. A page that is wider than
its screen, an error in a page's script, a search that finds nothing and a copied block with prompts
in it are printed, and the exit code is 1. Chromium is spoken to by its DevTools protocol.
"""

from __future__ import annotations

import asyncio
import base64
import http.server
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Optional

from tornado.websocket import websocket_connect

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"
SCREENS = {
    "light": (1280, 900, "light"), "dark": (1280, 900, "dark"), "narrow": (390, 844, "light"),
}  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


class Browser:
    """A tab of a browser, by its DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.problems: list[str] = []

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method and wait for its result; what the page complains of is noted."""
        number = next(self._numbers)
        await self._socket.write_message(
            json.dumps({"id": number, "method": method, "params": params})
        )
        while True:
            found = await self._receive()
            if found.get("id") == number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]

    async def wait(self, event: str) -> None:
        """Wait for an event."""
        while (await self._receive()).get("method") != event:
            pass

    async def _receive(self) -> dict[str, Any]:
        found = json.loads(await self._socket.read_message())
        if found.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(found["params"]["exceptionDetails"].get("exception")))
        return found

    async def value(self, expression: str) -> Any:
        """What an expression of the page's script gives."""
        result = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        return result["result"].get("value")

    async def open(self, address: str) -> None:
        """Go to a page, and wait until it is there."""
        await self.send("Page.navigate", url=address)
        await self.wait("Page.loadEventFired")
        await asyncio.sleep(0.3)  # Scripts of the page put in copy buttons after it was loaded.


async def look(browser: Browser, site: str, pages: Sequence[str], folder: Path) -> list[str]:
    """Take all pictures; what is wrong."""
    wrong: list[str] = []
    for page in pages:
        for screen, (width, height, theme) in SCREENS.items():
            await browser.send(
                "Emulation.setDeviceMetricsOverride", width=width, height=height,
                deviceScaleFactor=1, mobile=screen == "narrow",
            )  # fmt: skip
            await browser.send(
                "Emulation.setEmulatedMedia",
                features=[{"name": "prefers-color-scheme", "value": theme}],
            )
            await browser.open(f"{site}/{page}.html")
            found = await browser.value("document.documentElement.scrollWidth")
            if found > width:
                wrong.append(f"{page}, {screen}: {found} pixels wide on a screen of {width}")
            size = (await browser.send("Page.getLayoutMetrics"))["cssContentSize"]
            picture = await browser.send(
                "Page.captureScreenshot", captureBeyondViewport=True,
                clip={"x": 0, "y": 0, "width": width, "height": min(size["height"], 6000),
                      "scale": 1},
            )  # fmt: skip
            name = f"{page.replace('/', '-')}-{screen}.png"
            (folder / name).write_bytes(base64.b64decode(picture["data"]))
    return wrong


async def use(browser: Browser, site: str) -> list[str]:
    """Search, and copy: what is wrong."""
    wrong = []
    await browser.open(f"{site}/search.html?q=quantize")
    await asyncio.sleep(2)
    if not await browser.value("document.querySelectorAll('#search-results li').length"):
        wrong.append("search: nothing is found for 'quantize'")
    await browser.open(f"{site}/reference/api/create.html")
    # The button of the first example, whose code has prompts and results. The page selects what it
    # copies in a field of its own.
    copied = await browser.value(
        "(async () => { let text = null;"
        "document.execCommand = () => { text = document.activeElement.value; return true; };"
        "document.querySelector('div.doctest .copybtn').click();"
        "await new Promise(done => setTimeout(done, 300)); return text; })()"
    )
    if not copied or ">>>" in copied or "import tripy" not in copied:
        wrong.append(f"copy: got {copied!r}; expected the code without prompts and results")
    await browser.open(f"{site}/guides/introduction.html")
    if await browser.value("document.querySelectorAll('div.output .copybtn').length"):
        wrong.append("copy: printed results have a button")
    if not await browser.value("document.querySelectorAll('.highlight-py .copybtn').length"):
        wrong.append("copy: blocks have no button")
    return wrong


async def visit(command: str, address: str, pages: Sequence[str], folder: Path) -> list[str]:
    """Start a browser, look, and end it."""
    with tempfile.TemporaryDirectory() as profile:
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen([command, *options], stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            port = line.split("ws://")[1].split("/")[0]
            with urllib.request.urlopen(f"http://{port}/json/list") as answer:
                tab = next(each for each in json.load(answer) if each["type"] == "page")
            socket = await websocket_connect(tab["webSocketDebuggerUrl"], max_message_size=1 << 28)
            browser = Browser(socket)
            for domain in ("Page", "Runtime"):
                await browser.send(f"{domain}.enable")
            wrong = await look(browser, address, pages, folder)
            wrong += await use(browser, address)
            return wrong + [f"script: {problem}" for problem in browser.problems]
        finally:
            process.terminate()
            process.wait()


def main(arguments: Optional[Sequence[str]] = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not given or command is None or not (SITE / "index.html").exists():
        what = "no Chromium" if command is None else "no folder, or no site"
        print(f"screenshots: got {what}; expected `make docs` before, and a folder to write to",
              file=sys.stderr)  # fmt: skip
        return 2
    folder = Path(given[0])
    folder.mkdir(parents=True, exist_ok=True)
    skipped = ("search", "genindex", "py-modindex")
    pages = given[1:] or [
        page.relative_to(SITE).with_suffix("").as_posix()
        for page in sorted(SITE.rglob("*.html"))
        if page.stem not in skipped and "_" not in page.relative_to(SITE).parts[0][:1]
    ]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    wrong = asyncio.run(visit(command, address, pages, folder))
    server.shutdown()
    print("\n".join(wrong) or f"{len(pages)} pages, nothing wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
