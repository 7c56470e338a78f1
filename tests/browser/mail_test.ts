/**
 * Mail in a real browser against the whole web application (the store is one in memory): writing,
 * reading, answering, filing by mouse and by keyboard, and what happens to text when the page or the
 * store goes away.
 */
import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { KvError } from "../../kv/errors.ts";
import { type DevServer, startDevServer } from "../dev_server.ts";
import { axeFindings } from "./axe.ts";
import { launchBrowser } from "./browser.ts";

const PASSWORD = "a sparrow on the fence";

interface World {
  readonly server: DevServer;
  readonly browser: Browser;
  readonly store: { away: boolean };
  /** A logged-in page of a fresh browser profile. */
  open(user: string, path?: string): Promise<Page>;
  context(user: string): Promise<BrowserContext>;
}

async function withWorld(run: (world: World) => Promise<void>): Promise<void> {
  const store = { away: false };
  const server = await startDevServer({
    samples: false,
    beforeStoreCall: () => {
      if (store.away) throw new KvError("unavailable", "no primary");
    },
  });
  const browser = await launchBrowser();
  const problems: string[] = [];
  const context = async (user: string) => {
    const made = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    const request = { data: { username: user, password: PASSWORD } };
    const known = await server.context.accounts.find(user) !== null;
    const path = known ? "session" : "accounts";
    const answer = await made.request.post(`${server.origin}/api/v1/${path}`, request);
    assert.ok(answer.ok(), await answer.text());
    return made;
  };
  const open = async (user: string, path = "/mail") => {
    const page = await (await context(user)).newPage();
    page.setDefaultTimeout(60_000);
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("console", (message) => {
      if (/Content Security Policy/.test(message.text())) problems.push(message.text());
    });
    await page.goto(server.origin + path);
    await page.waitForSelector(".mail-list");
    return page;
  };
  try {
    await run({ server, browser, store, open, context });
    assert.deepEqual(problems, []);
  } finally {
    store.away = false;
    await browser.close();
    await server.stop();
  }
}

const test = (name: string, run: (world: World) => Promise<void>) =>
  // Playwright keeps its own timers and pipes.
  Deno.test({ name, sanitizeOps: false, sanitizeResources: false, fn: () => withWorld(run) });

const sendTo = (world: World, from: string, message: Record<string, unknown>) =>
  world.server.context.mail.send(from, { to: "ann@penncloud.test", ...message })
    .then(() => world.server.context.mail.worker.idle());

const rows = (page: Page) => page.locator(".mail-row");
const subjects = (page: Page) => page.locator(".mail-row__subject").allTextContents();

test("two people write to each other, with an attachment and a reply", async ({ open }) => {
  const bob = await open("bob"), ann = await open("ann");
  await ann.getByRole("button", { name: "Compose" }).click();
  await ann.getByLabel("To", { exact: true }).fill("bob@penncloud.test");
  await ann.keyboard.press("Enter");
  await ann.getByLabel("Subject").fill("Apple trees");
  await ann.getByRole("textbox", { name: "Message" }).fill("Shall we plant them?\nAnn");
  await ann.setInputFiles(".compose input[type=file]", {
    name: "plan.txt",
    mimeType: "text/plain",
    buffer: Buffer.from("two rows of four"),
  });
  await ann.waitForSelector(".attachment-row:not(:has(.progress))");
  await ann.getByRole("button", { name: "Send", exact: true }).click();
  await ann.waitForSelector("text=Message sent");
  // It appears at Bob's without his doing anything.
  await bob.locator(".mail-row__link", { hasText: "Apple trees" }).click();
  await bob.waitForSelector("text=Shall we plant them?");
  const [download] = await Promise.all([
    bob.waitForEvent("download"),
    bob.getByRole("link", { name: "Download plan.txt" }).click(),
  ]);
  assert.equal(await Deno.readTextFile(await download.path()), "two rows of four");
  await bob.waitForSelector(".mail-row:not(.mail-row--unread)");
  await bob.locator(".message__answers").getByRole("button", { name: "Reply" }).click();
  await bob.getByRole("textbox", { name: "Message" }).pressSequentially("On Saturday.");
  await bob.keyboard.press("Control+Enter");
  await bob.waitForSelector("text=Message sent");
  await ann.locator(".mail-row__link", { hasText: "Re: Apple trees" }).click();
  await ann.waitForSelector("text=On Saturday.");
  await ann.waitForSelector(".quoted");
  await ann.goto(ann.url().replace(/inbox.*/, "sent"));
  await ann.locator(".mail-row__link", { hasText: "Apple trees" }).click();
  await ann.waitForSelector("text=Delivered");
});

test("a sent message can be taken back for some seconds", async ({ open }) => {
  const ann = await open("ann"), bob = await open("bob");
  await ann.keyboard.press("c");
  await ann.getByLabel("To", { exact: true }).fill("bob@penncloud.test");
  await ann.getByRole("textbox", { name: "Message" }).fill("too early");
  await ann.getByRole("button", { name: "Send", exact: true }).click();
  await ann.getByRole("button", { name: "Undo" }).click();
  await ann.waitForSelector(".compose");
  assert.equal(await ann.getByRole("textbox", { name: "Message" }).inputValue(), "too early");
  await ann.waitForTimeout(5_000);
  assert.equal(await rows(bob).count(), 0);
});

test("an address that does not exist is named, and the text is still there", async ({ open }) => {
  const ann = await open("ann");
  await ann.keyboard.press("c");
  await ann.getByLabel("To", { exact: true }).fill("nobody@penncloud.test");
  await ann.getByRole("textbox", { name: "Message" }).fill("hello?");
  await ann.getByRole("button", { name: "Send", exact: true }).click();
  await ann.waitForSelector("text=nobody with the address nobody@penncloud.test");
  assert.equal(await ann.getByRole("textbox", { name: "Message" }).inputValue(), "hello?");
  await ann.waitForSelector(".chip--wrong");
});

test("text survives a reload that comes before it is saved, and another browser finds the draft", async ({ open, server }) => {
  const ann = await open("ann");
  await ann.keyboard.press("c");
  await ann.getByLabel("Subject").fill("Half a thought");
  await ann.getByRole("textbox", { name: "Message" }).fill("It was the best of");
  await ann.reload();
  await ann.waitForSelector(".compose");
  assert.equal(
    await ann.getByRole("textbox", { name: "Message" }).inputValue(),
    "It was the best of",
  );
  await ann.waitForSelector("text=Saved");
  await ann.getByRole("textbox", { name: "Message" }).pressSequentially(" times");
  await ann.waitForFunction(() =>
    document.querySelector(".compose__saved")?.textContent === "Saved"
  );
  const elsewhere = await open("ann", "/mail/drafts");
  await elsewhere.locator(".mail-row__link").click();
  const text = elsewhere.getByRole("textbox", { name: "Message" });
  assert.match(await text.inputValue(), /times/);
  assert.equal(
    (await server.context.mail.list("ann", { folder: "drafts", limit: 9 })).entries.length,
    1,
  );
});

test("while the store is away nothing is lost, and the message goes once when it is back", async ({ open, store, server }) => {
  const bob = await open("bob"), ann = await open("ann");
  await ann.keyboard.press("c");
  await ann.getByLabel("To", { exact: true }).fill("bob@penncloud.test");
  await ann.getByLabel("Subject").fill("In between");
  store.away = true;
  await ann.getByRole("textbox", { name: "Message" }).fill("written while it was away");
  await ann.getByRole("button", { name: "Send", exact: true }).click();
  await ann.waitForSelector("text=The store is changing over");
  await ann.waitForTimeout(5_000);
  store.away = false;
  await ann.waitForSelector("text=Message sent", { timeout: 120_000 });
  await server.context.mail.worker.sweep();
  await bob.locator(".mail-row__link", { hasText: "In between" }).waitFor();
  assert.equal(await rows(bob).count(), 1);
  assert.equal(await ann.locator(".banner").count(), 0);
});

test("mail is filed by keyboard alone: open, step, select, star, archive, delete, undo, search", async (world) => {
  await world.context("ann");
  for (const subject of ["one", "two", "three", "four"]) {
    await sendTo(world, "ann", { subject, text: `text of ${subject}` });
  }
  const page = await world.open("ann");
  await rows(page).nth(3).waitFor();
  for (const key of ["j", "o"]) await page.keyboard.press(key);
  await page.waitForSelector("text=text of four");
  await page.keyboard.press("j");
  await page.waitForSelector("text=text of three");
  assert.match(page.url(), /\/mail\/inbox\/[a-z0-9]+$/);
  await page.keyboard.press("s");
  await page.waitForSelector(".message__star--on");
  await page.keyboard.press("e");
  await page.waitForSelector("text=Message archived");
  assert.deepEqual(await subjects(page), ["four", "two", "one"]);
  await page.getByRole("button", { name: "Undo" }).click();
  await rows(page).nth(3).waitFor();
  assert.deepEqual(await subjects(page), ["four", "three", "two", "one"]);
  for (const key of ["x", "k", "x"]) await page.keyboard.press(key);
  await page.waitForSelector("text=2 selected");
  await page.keyboard.press("#");
  await page.waitForSelector("text=2 messages moved to Trash");
  assert.equal(await rows(page).count(), 2);
  await page.keyboard.press("/");
  await page.keyboard.type("subject:one in:anywhere");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/mail\/search\?q=/);
  await page.waitForFunction(() => document.querySelectorAll(".mail-row").length >= 1);
  assert.ok((await subjects(page)).every((subject) => subject.includes("one")));
  await page.goBack();
  await page.waitForSelector("h1:has-text('Inbox')");
});

test("a message from a stranger runs nothing and fetches nothing until asked", async (world) => {
  await world.context("ann");
  await sendTo(world, "ann", {
    subject: "Buy now",
    text: "plain",
    html: '<p style="color:red">Hello <b>you</b></p><script>top.hacked = 1</script>' +
      '<img src="https://track.example/pixel.gif" onerror="top.hacked = 1" width="40" height="40">' +
      '<a href="javascript:top.hacked = 1">press</a>' + "<p>line</p>".repeat(80),
  });
  const page = await world.open("ann");
  const asked: string[] = [];
  await page.route("https://track.example/**", (route) => {
    asked.push(route.request().url());
    return route.fulfill({ status: 200, contentType: "image/gif", body: "" });
  });
  await rows(page).locator(".mail-row__link").click();
  const frame = page.frameLocator(".message__frame");
  await frame.locator("b", { hasText: "you" }).waitFor();
  assert.deepEqual(asked, []);
  assert.equal(
    await frame.locator("p").first().evaluate((p) => getComputedStyle(p).color),
    "rgb(255, 0, 0)",
  );
  // The frame is as high as its text, so that there is one scroll bar and not two.
  await page.waitForFunction(() => document.querySelector("iframe")!.clientHeight > 1500);
  await page.getByRole("button", { name: "Show pictures" }).click();
  await page.waitForFunction(() => document.querySelector("iframe")!.src.includes("images=1"));
  await frame.locator("img[src]").waitFor();
  assert.equal(asked.length, 1);
  assert.equal(
    await page.evaluate(() => (globalThis as unknown as { hacked?: number }).hacked),
    undefined,
  );
});

test("every control has a name, landmarks are there, and contrast is enough", async (world) => {
  await world.context("ann");
  await sendTo(world, "ann", { subject: "One", text: "Hello\n> a\n> b\n> c\n> d" });
  const page = await world.open("ann");
  await rows(page).locator(".mail-row__link").click();
  await page.waitForSelector(".message__subject");
  await page.keyboard.press("r");
  await page.waitForSelector(".compose");
  for (const scheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme: scheme });
    const found = await axeFindings(page, ["wcag2a", "wcag2aa"]);
    assert.deepEqual(found, [], scheme);
  }
});

test("on a phone there is one pane at a time, and Back leads to the list", async (world) => {
  const context = await world.context("ann");
  await sendTo(world, "ann", { subject: "Small", text: "screen" });
  const page = await context.newPage();
  await page.setViewportSize({ width: 390, height: 844 });
  await page.goto(`${world.server.origin}/mail`);
  await rows(page).locator(".mail-row__link").click();
  await page.waitForSelector(".message__subject");
  assert.equal(await page.locator(".mail-list").isVisible(), false);
  await page.goBack();
  await rows(page).waitFor();
  assert.equal(await page.locator(".mail-message").isVisible(), false);
  await page.getByRole("button", { name: "Write a message" }).click();
  const box = await page.locator(".compose").boundingBox();
  assert.deepEqual([box!.width, box!.height].map(Math.round), [390, 844]);
});
