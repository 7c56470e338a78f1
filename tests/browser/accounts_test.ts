/**
 * Accounts in a real browser: sign up, a wrong password, log out, log in, change the password; once
 * with browser code and once without, because these pages need none. Then the keyboard, and what a
 * screen reader is told (axe-core).
 */
import assert from "node:assert/strict";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { type DevServer, startDevServer } from "../dev_server.ts";
import { axeFindings } from "./axe.ts";
import { launchBrowser } from "./browser.ts";

const PASSWORD = "a sparrow on the fence", NEXT_PASSWORD = "a heron in the reeds";

interface House {
  readonly server: DevServer;
  readonly browser: Browser;
}

async function withHouse(work: (house: House) => Promise<void>): Promise<void> {
  const server = await startDevServer({ samples: false });
  try {
    const browser = await launchBrowser();
    try {
      await work({ server, browser });
    } finally {
      await browser.close();
    }
  } finally {
    await server.stop();
  }
}

/** Sees everything that a policy refused and every error of a script. */
function collectComplaints(context: BrowserContext): string[] {
  const complaints: string[] = [];
  context.on("console", (message) => {
    const expected = /status of 4\d\d/.test(message.text());
    if (message.type() === "error" && !expected) complaints.push(message.text());
  });
  context.on("weberror", (error) => complaints.push(String(error.error())));
  return complaints;
}

const field = (page: Page, label: string) => page.getByLabel(label, { exact: true });
const button = (page: Page, name: string) => page.getByRole("button", { name, exact: true });

async function journey(page: Page, origin: string, name: string): Promise<void> {
  await page.goto(`${origin}/`);
  assert.equal(new URL(page.url()).pathname, "/login");

  await page.getByRole("link", { name: "Create an account" }).click();
  await field(page, "User name").fill(name);
  await field(page, "Password").fill("password");
  await button(page, "Create account").click();
  await page.getByText("among the first that anybody would try").waitFor();
  assert.equal(await field(page, "User name").inputValue(), name);
  await field(page, "Password").fill(PASSWORD);
  await button(page, "Create account").click();
  await page.getByRole("heading", { name: `Hello, ${name}` }).waitFor();

  await button(page, "Log out").click();
  await page.getByText("You are logged out.").waitFor();
  await field(page, "User name").fill(name);
  await field(page, "Password").fill("not my password");
  await button(page, "Log in").click();
  await page.getByText("User name or password is not right.").waitFor();
  await field(page, "Password").fill(PASSWORD);
  await button(page, "Log in").click();
  await page.getByRole("heading", { name: `Hello, ${name}` }).waitFor();

  await page.getByRole("link", { name: "Account", exact: true }).first().click();
  await field(page, "Current password").fill(PASSWORD);
  await field(page, "New password").fill(NEXT_PASSWORD);
  await button(page, "Change password").click();
  await page.getByText("Your password is changed.").waitFor();
  await page.getByText("This one").waitFor();

  await button(page, "Dark").click();
  assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");

  await button(page, "Log out").click();
  await page.goto(`${origin}/account`);
  await field(page, "User name").fill(name);
  await field(page, "Password").fill(NEXT_PASSWORD);
  await button(page, "Log in").click();
  await page.getByRole("heading", { name, exact: true }).waitFor();
  assert.equal(new URL(page.url()).pathname, "/account");
}

Deno.test("browser: sign up, mistakes, log out, log in, change password", async () => {
  await withHouse(async ({ server, browser }) => {
    const context = await browser.newContext();
    const complaints = collectComplaints(context);
    await journey(await context.newPage(), server.origin, "alice");
    assert.deepEqual(complaints, []);

    const plain = await browser.newContext({ javaScriptEnabled: false });
    await journey(await plain.newPage(), server.origin, "bob");
  });
});

Deno.test("browser: a change of password ends the session of another browser", async () => {
  await withHouse(async ({ server, browser }) => {
    await server.context.accounts.create({ username: "alice", password: PASSWORD });
    const [here, there] = await Promise.all([0, 1].map(async () => {
      const page = await (await browser.newContext()).newPage();
      await page.goto(`${server.origin}/login?next=/account`);
      await field(page, "User name").fill("alice");
      await field(page, "Password").fill(PASSWORD);
      await button(page, "Log in").click();
      await page.getByRole("heading", { name: "alice", exact: true }).waitFor();
      return page;
    }));
    await field(here!, "Current password").fill(PASSWORD);
    await field(here!, "New password").fill(NEXT_PASSWORD);
    await button(here!, "Change password").click();
    await here!.getByText("Your password is changed.").waitFor();
    await there!.reload();
    assert.equal(new URL(there!.url()).pathname, "/login");
  });
});

Deno.test("browser: the pages can be walked by keyboard, and tell a screen reader what they are", async () => {
  await withHouse(async ({ server, browser }) => {
    await server.context.accounts.create({ username: "alice", password: PASSWORD });
    const page = await (await browser.newContext({ reducedMotion: "reduce" })).newPage();
    await page.goto(`${server.origin}/login`);
    assert.deepEqual(await axeFindings(page), []);
    await page.locator("input:focus").waitFor();
    await page.keyboard.type("alice");
    await page.keyboard.press("Tab");
    await page.keyboard.type(PASSWORD);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Hello, alice" }).waitFor();
    assert.deepEqual(await axeFindings(page), []);
    await page.keyboard.press("Tab");
    await page.locator(":focus", { hasText: "Skip to content" }).waitFor();
    await page.keyboard.press("Enter");
    await page.locator("#main:focus").waitFor();
    for (const path of ["/account", "/signup?again", "/nothing", "/styleguide"]) {
      await page.goto(server.origin + path);
      assert.deepEqual(await axeFindings(page), [], path);
    }
  });
});
