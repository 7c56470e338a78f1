/** The frame and the parts that move, in a real browser: keyboard, focus, and the banner. */
import assert from "node:assert/strict";
import type { Page } from "playwright-core";
import { KvError } from "../../kv/errors.ts";
import { startDevServer } from "../dev_server.ts";
import { launchBrowser } from "./browser.ts";

async function withDemo(
  work: (page: Page, store: { away: boolean }) => Promise<void>,
  options: { phone?: boolean } = {},
): Promise<void> {
  const store = { away: false };
  const server = await startDevServer({
    samples: false,
    beforeStoreCall: () => {
      if (store.away) throw new KvError("unavailable", "no primary");
    },
  });
  try {
    await server.context.accounts.create({ username: "alice", password: "a sparrow on the fence" });
    const browser = await launchBrowser();
    try {
      const viewport = options.phone ? { width: 390, height: 844 } : { width: 1440, height: 900 };
      const context = await browser.newContext({ viewport, baseURL: server.origin });
      await context.request.post("/api/v1/session", {
        data: { username: "alice", password: "a sparrow on the fence" },
      });
      const page = await context.newPage();
      const errors: string[] = [];
      page.on("pageerror", (error) => errors.push(error.message));
      await page.goto("/styleguide/app/inbox");
      await page.getByText("Row 0", { exact: true }).waitFor();
      await work(page, store);
      assert.deepEqual(errors, []);
    } finally {
      await browser.close();
    }
  } finally {
    store.away = false;
    await server.stop();
  }
}

const press = (page: Page, name: string) => page.getByRole("button", { name, exact: true }).click();
const answer = (page: Page, text: string) =>
  page.locator("#answer", { hasText: new RegExp(`^${text}$`) }).waitFor();
const focused = (page: Page) =>
  page.evaluate(() =>
    document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent
  );

Deno.test("browser: a menu is walked with the arrow keys and gives the focus back", async () => {
  await withDemo(async (page) => {
    await page.getByRole("button", { name: "More" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("menu").waitFor();
    assert.match((await focused(page))!, /^Reply/);
    await page.keyboard.press("ArrowDown");
    assert.match((await focused(page))!, /^Delete/, "what is disabled is passed over");
    await page.keyboard.press("Enter");
    await answer(page, "delete");
    assert.equal(await focused(page), "More");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Escape");
    assert.equal(await page.getByRole("menu").count(), 0);
    await page.getByRole("button", { name: "More" }).click();
    await page.getByRole("button", { name: "More" }).click();
    await page.getByRole("menu").waitFor({ state: "detached" });
  });
});

Deno.test("browser: dialogs take Enter and Escape and give the focus back", async () => {
  await withDemo(async (page) => {
    await press(page, "Open a dialog");
    await page.keyboard.type("Garden");
    await page.keyboard.press("Enter");
    await answer(page, "made");
    assert.equal(await focused(page), "Open a dialog");
    await press(page, "Ask");
    await page.keyboard.press("Escape");
    await answer(page, "kept");
    await press(page, "Ask");
    await press(page, "Delete");
    await answer(page, "deleted");
  });
});

Deno.test("browser: a toast offers to undo", async () => {
  await withDemo(async (page) => {
    await press(page, "Show a toast");
    await press(page, "Undo");
    await answer(page, "undone");
    assert.equal(await page.getByText("Moved to Trash").count(), 0);
  });
});

Deno.test("browser: ten thousand rows cost as much as twenty", async () => {
  await withDemo(async (page) => {
    const rows = page.locator(".virtual-list__row");
    assert.ok(await rows.count() < 60);
    await page.locator(".virtual-list").evaluate((list) => list.scrollTop = list.scrollHeight);
    await page.getByText("Row 9999", { exact: true }).waitFor();
    assert.ok(await rows.count() < 60);
  });
});

Deno.test("browser: links inside an application change the address without loading a page", async () => {
  await withDemo(async (page) => {
    await page.evaluate(() => document.body.dataset.kept = "yes");
    await page.getByRole("link", { name: "Sent" }).click();
    assert.equal(new URL(page.url()).pathname, "/styleguide/app/sent");
    await page.goBack();
    const current = page.locator(".side-panel [aria-current=page]");
    assert.match((await current.textContent())!, /Inbox/);
    assert.equal(await page.evaluate(() => document.body.dataset.kept), "yes");
  });
});

Deno.test("browser: the banner appears while the store is away, and goes by itself", async () => {
  await withDemo(async (page, store) => {
    store.away = true;
    await press(page, "Ask the server");
    await page.getByText("The store is changing over").waitFor();
    store.away = false;
    await answer(page, "answered");
    await page.getByText("The store is changing over").waitFor({ state: "detached" });
  });
});

Deno.test("browser: on a phone the places are in a drawer that closes when one is chosen", async () => {
  await withDemo(async (page) => {
    assert.equal(await page.getByRole("link", { name: "Sent" }).count(), 0);
    await press(page, "Menu");
    await page.getByRole("link", { name: "Sent" }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
    assert.equal(new URL(page.url()).pathname, "/styleguide/app/sent");
    assert.ok(await page.getByRole("link", { name: "Drive" }).isVisible());
  }, { phone: true });
});

Deno.test("browser: the theme changes at once and stays for the next page", async () => {
  await withDemo(async (page) => {
    await page.emulateMedia({ colorScheme: "light" });
    await press(page, "Light or dark");
    assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
    await page.goto("/account");
    assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  });
});
