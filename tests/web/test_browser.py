"""The page in a real browser: it shows live facts, stops spending, fits a telephone and asks nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace

import pytest
from yarl import URL

from kiki_agent.model import Instant
from kiki_agent.web import Services
from kiki_agent.web.app import HOUSE

from .browser import Tab, chromium, find_chromium, tab
from .conftest import Client
from .fakes import FakeAccounts, FakeAlert, FakeAlerts, FakeOptimizer, FakeRecords, FakeShield, RunningClock
from .fakes import services as well

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]
PATH = find_chromium()


@pytest.fixture(scope="module")
def browser() -> Iterator[int]:
    if PATH is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with chromium(PATH) as port:
        yield port


@pytest.fixture
async def page(browser: int) -> AsyncIterator[Tab]:
    async with tab(browser) as opened:
        yield opened


@pytest.fixture
def services() -> Services:
    return well(RunningClock())


def address(client: Client, path: str = "/") -> str:
    return str(URL(f"http://{client.host}:{client.port}").join(URL(path)))


async def shown(page: Tab, client: Client, **options: object) -> None:
    await page.open(address(client), **options)  # type: ignore[arg-type]
    await page.until("document.querySelector('#link').dataset.state === 'live'")


async def test_it_shows_the_facts(page: Tab, client: Client) -> None:
    await shown(page, client)
    assert await page.text("#sentence") == "On plan. Nothing needs you."
    assert await page.text("#spent") == "$1,548.00 of $2,600.00"
    assert await page.text("#efficiency") == "2.87"
    assert await page.text("#mode") == "DEMO · simulated market"
    assert (await page.text("#countdown")).startswith("3:")
    rows = await page.run(
        "[...document.querySelectorAll('#platforms th')].map((each) => each.innerText.split('\\n')[0])"
    )
    assert [row.split()[0] for row in rows] == ["Amazon", "Google", "LinkedIn", "Meta", "Microsoft", "TikTok"]
    done = await page.text("#actions")
    assert "Moved 60.00 USD a day from LinkedIn to TikTok" in done
    assert "$360.00→$300.00" in done.replace(" ", "")
    assert "-22.4 %" in done
    assert await page.run("document.querySelector('#needs').hidden")


async def test_it_asks_nobody_else_and_complains_of_nothing(page: Tab, client: Client) -> None:
    for path in ("/", "/docs"):
        await page.open(address(client, path))
    await page.until("document.querySelectorAll('details').length > 20")
    await shown(page, client)
    own = f"http://{client.host}:{client.port}/"
    assert page.requests
    assert [url for url in page.requests if not url.startswith((own, "data:"))] == []
    assert page.errors == []


async def test_it_follows_without_reloading(page: Tab, client: Client, services: Services) -> None:
    await shown(page, client)
    await page.run("window.mark = 1")
    assert isinstance(services.accounts, FakeAccounts)
    services.accounts.table.spend_today_micros[0] += 100_000_000
    await page.until("document.querySelector('#spent').innerText.startsWith('$1,648.00')")
    assert await page.run("window.mark") == 1


async def test_stopping_is_one_step_and_allowing_two(page: Tab, client: Client, services: Services) -> None:
    shield = services.shield
    assert isinstance(shield, FakeShield)
    await shown(page, client)
    await page.run("document.querySelector('#stop').click()")
    await page.until("document.querySelector('#stop').dataset.on === 'true'")
    assert shield.killed
    assert (await page.text("#sentence")).startswith("Stopped.")
    assert await page.text("#stop") == "Turn back on…"
    await page.run("document.querySelector('#stop').click()")
    assert not await page.run("document.querySelector('#confirm').hidden")
    assert shield.killed
    assert await page.run("document.activeElement.id") == "confirm-title"
    await page.run("document.querySelector('#confirm-no').click()")
    assert shield.killed
    await page.run("document.querySelector('#stop').click()")
    await page.run("document.querySelector('#confirm-yes').click()")
    await page.until("document.querySelector('#stop').dataset.on === 'false'")
    assert not shield.killed
    assert await page.text("#sentence") == "On plan. Nothing needs you."


async def test_a_stop_that_fails_says_so(page: Tab, client: Client, services: Services) -> None:
    await shown(page, client)
    services.shield = None
    await page.run("document.querySelector('#stop').click()")
    await page.until("document.querySelector('#banner').innerText.startsWith('Not stopped')")


@pytest.mark.parametrize("dark", [False, True])
async def test_it_fits_a_telephone(page: Tab, client: Client, services: Services, dark: bool) -> None:
    assert isinstance(services.alerts, FakeAlerts)
    services.alerts.items = [FakeAlert("a", "CRITICAL", "Token" + "refused" * 20, "x" * 300, services.clock.now())]
    for path in ("/", "/docs"):
        await page.open(address(client, path), width=390, dark=dark)
        await page.until("document.querySelectorAll('details, #platforms tr').length > 0")
        await page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        widths = await page.run("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths == [390, 390], path
    await shown(page, client, width=390, dark=dark)
    await page.run("window.scrollTo(0, 3000)")
    box = await page.run(
        "(({top, bottom, right}) => [top, bottom, right])(document.querySelector('#stop').getBoundingClientRect())"
    )
    assert 0 <= box[0] < box[1] <= 844
    assert box[2] <= 390


async def test_what_is_not_known_is_not_zero(page: Tab, client: Client, services: Services) -> None:
    assert isinstance(services.accounts, FakeAccounts)
    assert isinstance(services.optimizer, FakeOptimizer)
    services.accounts.as_of = dict.fromkeys(services.accounts.as_of)
    services.optimizer.snapshot = None
    await shown(page, client)
    assert await page.text("#spent") == "Cannot say, because no platform has reported spend yet."
    assert (await page.text("#efficiency")).startswith("Cannot say, because")
    table = await page.text("#platforms")
    assert table.count("Cannot say, because this platform has not reported spend yet") == 6
    assert "$0.00" not in table


async def test_names_are_text_and_never_markup(page: Tab, client: Client, services: Services) -> None:
    assert isinstance(services.records, FakeRecords)
    row = services.records.rows[0]
    evil = "<img src=x onerror=document.title='owned'>"
    services.records.rows = [replace(row, intent=replace(row.intent, campaign_id=evil))]
    await shown(page, client)
    assert evil in await page.text("#actions")
    assert "owned" not in await page.run("document.title")
    assert page.errors == []


async def test_simulated_time_is_called_that(page: Tab, client_for: Callable[[Services], Awaitable[Client]]) -> None:
    client = await client_for(well(RunningClock(speed=60.0)))
    await shown(page, client)
    said = await page.text("#simulated")
    assert said.startswith("Simulated time")
    assert said.endswith("60 × real time")


async def test_a_lost_connection_is_shown_and_found_again(page: Tab, client: Client) -> None:
    await shown(page, client)
    app = client.app
    assert app is not None
    await app[HOUSE].hub.close(app)
    await page.until("document.querySelector('#link').innerText === 'Reconnecting'")
    assert "No connection to the agent" in await page.text("#banner")
    await page.until("document.querySelector('#link').innerText === 'Live'")
    assert await page.run("document.querySelector('#banner').hidden")


async def test_signing_in(page: Tab, client_for: Callable[[Services], Awaitable[Client]]) -> None:
    client = await client_for(well(RunningClock(), token="open-sesame"))
    await page.open(address(client), width=390)
    await page.run("document.querySelector('#token').value = 'wrong'; document.querySelector('form').submit()")
    await page.until("document.querySelector('.wrong')")
    await page.run("document.querySelector('#token').value = 'open-sesame'; document.querySelector('form').submit()")
    await page.until("document.querySelector('#link')?.dataset.state === 'live'")
    assert await page.run("document.cookie") == ""
    assert not await page.run("document.querySelector('#sign-out').hidden")
    await page.run("document.querySelector('#sign-out button').click()")
    await page.until("document.querySelector('#token')")


async def test_the_keyboard_reaches_the_stop_button_and_things_have_names(page: Tab, client: Client) -> None:
    await shown(page, client)
    reached = []
    for _ in range(6):
        for kind in ("keyDown", "keyUp"):
            await page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(await page.run("document.activeElement.id || document.activeElement.className"))
    assert reached[0] == "skip"
    assert "stop" in reached
    nameless = await page.run(
        "[...document.querySelectorAll('button, input, [role=img]')]"
        ".filter((each) => !(each.innerText || each.ariaLabel || each.labels?.length)).length"
    )
    assert nameless == 0
    assert await page.run("document.querySelectorAll('h1').length") == 1
    assert await page.run("document.documentElement.lang") == "en"


async def test_the_record_can_be_checked_from_the_page(page: Tab, client: Client) -> None:
    await shown(page, client)
    await page.run("document.querySelector('#verify').click()")
    await page.until("document.querySelector('#verified').innerText === 'all 184,203 entries are sound'")


async def test_a_new_cycle_moves_the_countdown(page: Tab, client: Client, services: Services) -> None:
    await shown(page, client)
    assert services.supervisor is not None
    services.supervisor.health["optimizer"].next_due = Instant(services.clock.now() + 299_000_000)
    services.signals.publish("optimizer", {"shifts": 0})
    await page.until("document.querySelector('#countdown').innerText.startsWith('4:')")
