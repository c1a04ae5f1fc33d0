"""The page in a real browser, against the suite as `make run` starts it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from shared.contracts.ids import new_id
from tests.support.producer import connected
from tests.support.suite import Suite
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Lets a test cut the page's sockets, and keep new ones from being opened.
SOCKETS = """
window.sockets = [];
window.barred = false;
window.WebSocket = class extends WebSocket {
  constructor(url) {
    super(window.barred ? url.replace("/ws/chat", "/barred") : url);
    window.sockets.push(this);
  }
};
"""
CUT = "sockets.forEach((socket) => socket.close(4999))"
PASSWORD = "correct-horse-battery"


@dataclass
class Window:
    """A browser window of one user, signed in."""

    page: Page
    user: str
    errors: list[str]

    def part(self, testid: str) -> Locator:
        """Return the element with this `data-testid`."""
        return self.page.get_by_test_id(testid)

    async def user_id(self) -> str:
        """Return the id that the page shows."""
        return await self.part("user-id").inner_text()

    async def say(self, text: str) -> None:
        """Type a message and send it."""
        await self.part("chat-input").fill(text)
        await self.part("chat-send").click()

    def message(self, text: str) -> Locator:
        """Return the messages of this text."""
        return self.part("chat-log").locator(".message", has=self.page.get_by_text(text, exact=True))

    async def enter(self, room: str) -> None:
        """Join a room and look at it."""
        await self.part("room-input").fill(room)
        await self.part("room-input").press("Enter")
        await expect(self.part("room-name")).to_have_text(room)
        await expect(self.page.locator("#online-count")).not_to_have_text("0 online")

    async def connected(self) -> None:
        """Wait until both connections stand."""
        for chip in ("connection-chat", "connection-stream"):
            await expect(self.part(chip)).to_have_attribute("data-state", "open")


class Windows:
    """Opens windows; each is a browser of its own as far as cookies go."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser, self._url = browser, url
        self.opened: list[Window] = []

    async def open(self, user: str = "", *, width: int = 1280) -> Window:
        """Open a window and register a new user in it, as a person does; or sign one in who is there already."""
        context = await self._browser.new_context(viewport={"width": width, "height": 800})
        await context.add_init_script(SOCKETS)
        window = Window(await context.new_page(), user or f"user-{new_id()[:10]}", [])
        window.page.on("pageerror", lambda error: window.errors.append(str(error)))
        window.page.on("console", lambda line: window.errors.append(line.text) if line.type == "error" else None)
        await window.page.goto(self._url)
        if not user:
            await window.part("login-switch").click()
        await window.part("login-user").fill(window.user)
        await window.part("login-password").fill(PASSWORD)
        await window.part("login-submit").click()
        await window.connected()
        self.opened.append(window)
        return window


@pytest_asyncio.fixture(loop_scope="session")
async def windows(browser: Browser, suite: Suite) -> AsyncIterator[Windows]:
    """Opens windows, and closes them after the test."""
    windows = Windows(browser, suite.url)
    yield windows
    for window in windows.opened:
        await window.page.context.close()


async def test_two_people_chat_and_nobody_sees_a_message_twice(windows: Windows) -> None:
    ada, bob = await windows.open(), await windows.open()
    question, answer = f"question {new_id()}", f"answer {new_id()}"

    await ada.say(question)
    await expect(bob.message(question)).to_contain_text(ada.user)
    await bob.say(answer)

    await expect(ada.message(answer)).to_contain_text(bob.user)
    for window in (ada, bob):
        for text in (question, answer):
            await expect(window.message(text)).to_have_count(1)
    await expect(ada.page.locator(".pending, .refused")).to_have_count(0)
    assert ada.errors + bob.errors == []


async def test_markup_in_a_message_stays_text(windows: Windows) -> None:
    ada = await windows.open()
    text = f"<img src=x onerror=alert(1)> {new_id()}"

    await ada.say(text)

    await expect(ada.message(text)).to_have_count(1)
    await expect(ada.part("chat-log").locator("img")).to_have_count(0)


async def test_others_see_who_is_there_who_types_and_what_is_unread(windows: Windows) -> None:
    ada, bob = await windows.open(), await windows.open()
    room, text = f"room-{new_id()[:8]}", f"unread {new_id()}"
    await ada.enter(room)
    await bob.enter(room)

    await expect(ada.page.locator("#online-list")).to_contain_text("UU")
    await expect(ada.page.get_by_label(bob.user, exact=True)).to_be_visible()
    await bob.part("chat-input").press_sequentially("hm")
    await expect(ada.page.locator("#typing-line")).to_have_text(f"{bob.user} is typing…")
    await ada.part("room-general").click()
    await bob.say(text)

    await expect(ada.part(f"room-{room}").locator(".badge")).to_have_text("1")
    await ada.part(f"room-{room}").click()
    await expect(ada.message(text)).to_have_count(1)
    await expect(ada.part(f"room-{room}").locator(".badge")).to_be_hidden()


async def test_what_is_read_in_one_window_is_read_in_the_other_and_unread_outlives_a_reload(windows: Windows) -> None:
    bob, ada = await windows.open(), await windows.open()
    room, texts = f"room-{new_id()[:8]}", [f"{n} unread {new_id()}" for n in range(2)]
    other = await windows.open(ada.user)
    badges = [window.part(f"room-{room}").locator(".badge") for window in (ada, other)]
    for window in (ada, other, bob):
        await window.enter(room)
    for window in (ada, other):
        await window.part("room-general").click()
    for text in texts:
        await bob.say(text)
    for badge in badges:
        await expect(badge).to_have_text("2")

    await other.page.reload()
    await expect(badges[1]).to_have_text("2")
    await expect(badges[1]).to_be_visible()
    await ada.part(f"room-{room}").click()
    for badge in badges:
        await expect(badge).to_be_hidden()
    await other.page.reload()
    await other.connected()
    await expect(badges[1]).to_be_hidden()
    assert ada.errors + other.errors == []


async def test_a_dropped_socket_reconnects_and_nothing_is_missing(windows: Windows) -> None:
    ada, bob = await windows.open(), await windows.open()
    texts = [f"{n} while bob is away {new_id()}" for n in range(3)]
    before, after = f"before {new_id()}", f"after {new_id()}"
    await ada.say(before)
    await expect(bob.message(before)).to_have_count(1)

    await bob.page.evaluate(f"window.barred = true; {CUT}")
    await expect(bob.part("connection-chat")).not_to_have_attribute("data-state", "open")
    await bob.page.context.set_offline(True)  # not before: it may eat the answer to a close
    for text in texts:
        await ada.say(text)
        await expect(ada.message(text)).to_have_count(1)
    await bob.page.evaluate("window.barred = false")
    await bob.page.context.set_offline(False)
    await bob.connected()
    await ada.say(after)
    await expect(bob.message(after)).to_have_count(1)

    shown = await bob.part("chat-log").locator(".content").all_inner_texts()
    assert [text for text in shown if text in {before, *texts, after}] == [before, *texts, after]
    await expect(bob.page.locator(".notice")).to_have_count(0)


async def test_a_message_sent_while_no_socket_can_be_had_goes_by_http(windows: Windows) -> None:
    ada, bob = await windows.open(), await windows.open()
    text = f"by post {new_id()}"
    await ada.page.evaluate(f"window.barred = true; {CUT}")
    await expect(ada.part("connection-chat")).not_to_have_attribute("data-state", "open")

    await ada.say(text)

    await expect(bob.message(text)).to_contain_text(ada.user)
    await expect(ada.message(text)).to_have_count(1)
    await ada.page.evaluate("window.barred = false; window.dispatchEvent(new Event('online'))")
    await ada.connected()
    await expect(ada.message(text)).to_have_count(1)
    await expect(ada.page.locator(".pending")).to_have_count(0)


async def test_prices_move_and_follow_what_the_user_adds_and_removes(windows: Windows) -> None:
    ada = await windows.open()
    rows = ada.page.locator("#price-rows tr")
    await expect(rows).to_have_count(8)
    price = rows.first.locator(".price")
    first = await price.inner_text()
    await expect(price).not_to_have_text(first)
    taken = await rows.nth(7).locator("th").inner_text()

    await ada.page.get_by_role("button", name=f"Remove {taken}").click()
    await expect(ada.part(f"price-row-{taken}")).to_have_count(0)
    await ada.part("price-input").fill(taken.lower())
    await ada.part("price-input").press("Enter")

    await expect(ada.part(f"price-row-{taken}").locator(".price")).to_have_text(re.compile(r"\d"))
    assert ada.errors == []


async def test_a_notification_from_outside_shows_and_is_still_there_after_a_reload(
    windows: Windows, suite: Suite
) -> None:
    ada, title = await windows.open(), f"Deployed {new_id()}"

    async with connected(suite.nats_url) as producer:
        await producer.publish(f"notify.user.{await ada.user_id()}", {"title": title, "body": "all green"})

    await expect(ada.part("notification-list")).to_contain_text(title)
    await expect(ada.page.locator("#toasts")).to_contain_text("all green")
    await ada.page.reload()
    await ada.connected()
    await expect(ada.part("notification-list").get_by_text(title)).to_have_count(1)


async def test_system_status_and_log_lines_are_for_those_who_may_read_them(windows: Windows, suite: Suite) -> None:
    ada = await windows.open()
    await expect(ada.page.locator("#price-rows tr")).to_have_count(8)
    await expect(ada.page.locator("#status")).to_be_hidden()

    await ada.page.locator("#sign-out").click()
    await ada.page.locator("#login-demo").click()
    await ada.part("login-submit").click()

    await expect(ada.page.locator("#status-list")).to_contain_text("price_feed")
    async with connected(suite.nats_url) as producer:
        await eventually(partial(producer.listens, "logs.probe.one"))
        await producer.log("backup", "disk_full", fields={"note": "<img src=x onerror=alert(1)>"})
    await expect(ada.part("log-lines")).to_contain_text("backup disk_full note=<img src=x onerror=alert(1)>")
    await expect(ada.part("log-lines").locator("img")).to_have_count(0)


async def test_signing_out_leads_to_the_form_and_the_wrong_password_to_a_sentence(windows: Windows) -> None:
    ada = await windows.open()

    await ada.page.locator("#sign-out").click()
    await ada.part("login-user").fill(ada.user)
    await ada.part("login-password").fill("not-the-password")
    await ada.part("login-submit").click()

    await expect(ada.page.get_by_role("alert")).to_have_text(re.compile(r"\w+"))
    await expect(ada.part("chat-input")).to_be_hidden()


async def test_the_page_fits_a_phone(windows: Windows) -> None:
    ada = await windows.open(width=400)
    await ada.say("a-long-word-" * 20)

    assert await ada.page.evaluate("document.documentElement.scrollWidth") == 400
    await expect(ada.part("chat-send")).to_be_in_viewport()
