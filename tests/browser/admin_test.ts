/**
 * The console in a real browser. First over a sample cluster: addresses, keyboard, what a screen
 * reader is told (axe-core), and going on when streams, frontend and store fail. Then on the default
 * cluster of real processes: an administrator kills a primary and starts it again while somebody
 * writes, and nobody notices.
 */
import assert from "node:assert/strict";
import type { BrowserContextOptions, Page } from "playwright-core";
import { KvError } from "../../kv/errors.ts";
import { put } from "../../kv/kv.ts";
import { startCluster } from "../cluster/harness.ts";
import { type DevServer, startDevServer } from "../dev_server.ts";
import { eventually } from "../eventually.ts";
import type { SampleAdmin } from "../sample_cluster.ts";
import { axeFindings } from "./axe.ts";
import { launchBrowser } from "./browser.ts";

const PASSWORD = "a sparrow on the fence";

interface World {
  readonly page: Page;
  readonly server: DevServer;
  readonly cluster: SampleAdmin;
  readonly store: { away: boolean };
}

async function withConsole(
  path: string,
  run: (world: World) => Promise<void>,
  options: BrowserContextOptions = {},
): Promise<void> {
  const store = { away: false };
  const server = await startDevServer({
    samples: false,
    beforeStoreCall: () => {
      if (store.away) throw new KvError("unavailable", "no primary");
    },
  });
  const browser = await launchBrowser();
  const problems: string[] = [];
  try {
    const { accounts } = server.context;
    await accounts.create({ username: "root", password: PASSWORD, admin: true, operator: true });
    const context = await browser.newContext({
      viewport: { width: 1280, height: 800 },
      baseURL: server.origin,
      ...options,
    });
    const answer = await context.request.post("/api/v1/session", {
      data: { username: "root", password: PASSWORD },
    });
    assert.ok(answer.ok(), await answer.text());
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("console", (message) => {
      if (/Content Security Policy/.test(message.text())) problems.push(message.text());
    });
    await page.goto(path);
    await page.waitForSelector(".console");
    await run({ page, server, cluster: server.context.admin as SampleAdmin, store });
    assert.deepEqual(problems, []);
  } finally {
    store.away = false;
    await browser.close();
    await server.stop();
  }
}

/** Playwright keeps its own timers and pipes. */
function browserTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: `browser: ${name}`, sanitizeOps: false, sanitizeResources: false, fn });
}

const verdict = (page: Page, title: string) =>
  page.locator(".verdict__title", { hasText: title }).waitFor();
const feedSays = (page: Page, words: string) =>
  page.locator(".console-head__line .badge", { hasText: words }).waitFor();

const AXE_RULES = ["wcag2a", "wcag2aa", "wcag21aa"];

browserTest("the console answers first, and changes as the cluster does", async () => {
  await withConsole("/admin", async ({ page, cluster }) => {
    await verdict(page, "Everything is fine");
    await feedSays(page, "Live view");
    cluster.set(10003, "down");
    await verdict(page, "Everything works, with less in reserve");
    await page.getByText("Tablet 4.1 moved its primary from backend/3 to backend/4").waitFor();
    assert.match(await page.title(), /^! Admin/);
    cluster.set(10004, "down");
    await verdict(page, "Part of the data cannot be changed");
    await page.getByRole("button", { name: "Start backend/3" }).click();
    await page.getByRole("button", { name: "Start backend/4" }).click();
    await verdict(page, "Everything is fine");
    assert.equal(await page.title(), "Admin · PennCloud");
  });
});

browserTest("every place has an address, and Back leads to where one was", async () => {
  await withConsole("/admin/nodes/10003", async ({ page }) => {
    await page.getByRole("heading", { name: "backend/3", level: 1 }).waitFor();
    await page.getByRole("link", { name: "4.1" }).click();
    await page.waitForURL("**/admin/tablets?tablet=4.1");
    assert.equal(
      await page.locator(".band__segment[aria-pressed=true] .band__id").textContent(),
      "4.1",
    );
    await page.locator(".band__segment").nth(6).click();
    await page.waitForURL("**/admin/tablets?tablet=7.1");
    await page.goBack();
    await page.goBack();
    await page.getByRole("heading", { name: "backend/3", level: 1 }).waitFor();
    await page.goto("/admin/nodes/12345");
    await page.getByText("No node has port 12345").waitFor();
  });
});

browserTest("a node is killed by keyboard alone, after the consequence was read", async () => {
  await withConsole("/admin/nodes", async ({ page, cluster }) => {
    await page.getByRole("button", { name: "Actions for backend/3" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("menu").waitFor();
    for (let i = 0; i < 2; i++) await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog", { name: "Kill backend/3?" });
    await dialog.getByText("1 group will change primary").waitFor();
    await page.keyboard.press("Escape");
    assert.equal((await cluster.status()).nodes.find((it) => it.port === 10003)!.state, "live");

    await page.getByRole("button", { name: "Actions for backend/3" }).click();
    await page.getByRole("menuitem", { name: "Kill" }).click();
    await dialog.waitFor();
    // The focus begins where nothing happens.
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    const card = page.locator(".node-card", { hasText: "backend/3" });
    await card.getByText("Stopped").waitFor();
    await card.getByRole("button", { name: "Start" }).click();
    await card.getByText("Live").waitFor();
  });
});

browserTest("the band of tablets is walked with the arrow keys", async () => {
  await withConsole("/admin/tablets", async ({ page }) => {
    await page.locator(".band__segment").first().focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    await page.locator(".band-details", { hasText: "backend/2" }).getByText("3.1").waitFor();
    await page.keyboard.press("Enter");
    await page.waitForURL("**/admin/tablets?tablet=3.1");
  });
});

browserTest(
  "rows are read page by page, values opened, secrets hidden, rows found by key",
  async () => {
    await withConsole("/admin/data/10000", async ({ page, server }) => {
      const { kv } = server.context;
      for (let i = 0; i < 130; i++) {
        await put(kv, `a-row-${String(i).padStart(3, "0")}`, "value", `{"number":${i}}`);
      }
      await put(kv, "a-long", "text", "begin " + "x".repeat(5000) + " end");
      await page.reload();
      await page.locator(".row-block__key", { hasText: "a-row-000" }).waitFor();
      await page.getByRole("link", { name: "Next page" }).click();
      await page.locator(".row-block__key", { hasText: "a-row-120" }).waitFor();
      await page.goBack();
      await page.locator(".row-block__key", { hasText: "a-row-000" }).waitFor();

      await page.getByRole("searchbox", { name: "Find a row" }).fill("a-long");
      await page.keyboard.press("Enter");
      await page.waitForURL("**/admin/data/10000?start=a-long");
      await page.locator(".cell__line").first().click();
      await page.locator(".value__text", { hasText: /x end$/ }).waitFor();
      await page.getByRole("button", { name: "Hex", exact: true }).click();
      await page.locator(".value__text", { hasText: "62 65 67 69 6e" }).waitFor();

      await page.getByLabel("From row").fill("root/account");
      await page.getByRole("combobox", { name: "Node" }).selectOption("10006");
      await page.getByLabel("From row").fill("root/account");
      await page.getByRole("button", { name: "Go", exact: true }).click();
      await page.locator(".cell__line").first().click();
      const text = await page.locator(".value__text").textContent();
      assert.match(text!, /"passwordHash": "••••••••"/);
      await page.getByText("Secrets are hidden").waitFor();
    });
  },
);

browserTest(
  "without a stream the console asks by itself, and takes the stream when it is back",
  async () => {
    await withConsole("/admin", async ({ page, cluster }) => {
      await feedSays(page, "Live view");
      await page.route("**/api/v1/admin/events", (route) => route.abort());
      await page.reload();
      await feedSays(page, "Every 2 s");
      cluster.set(8001, "down");
      await page.getByText("frontend/1 (port 8001) is down").first().waitFor();
      await page.unroute("**/api/v1/admin/events");
      await feedSays(page, "Live view");
      // What was seen by asking is not told a second time by the stream.
      assert.equal(await page.locator(".event", { hasText: "frontend/1" }).count(), 1);
    });
  },
);

browserTest("while the frontend is away the console says so and goes on by itself", async () => {
  await withConsole("/admin", async ({ page }) => {
    // The browser's offline mode spares connections that are open, so there must be none.
    await page.route("**/api/v1/admin/events", (route) => route.abort());
    await page.reload();
    await feedSays(page, "Every 2 s");
    await page.context().setOffline(true);
    await feedSays(page, "No news");
    await page.getByText("The server does not answer.").first().waitFor();
    await page.locator(".counters").waitFor();
    await page.unroute("**/api/v1/admin/events");
    await page.context().setOffline(false);
    await feedSays(page, "Live view");
    await page.locator(".banner").waitFor({ state: "detached" });
  });
});

browserTest("while the store is away the console stays, live and able to start nodes", async () => {
  await withConsole("/admin", async ({ page, cluster, store }) => {
    await feedSays(page, "Live view");
    store.away = true;
    for (const port of [10000, 10001, 10002]) cluster.set(port, "down");
    await verdict(page, "Part of the data cannot be reached");
    await page.getByRole("button", { name: "Start backend/1" }).click();
    await verdict(page, "Part of the data cannot be changed");
    assert.equal(await page.locator(".banner").count(), 0);
  });
});

browserTest(
  "nothing stands in the way of a screen reader, in either theme, on a phone too",
  async () => {
    const places = ["/admin", "/admin/nodes", "/admin/nodes/10003", "/admin/tablets?tablet=4.1"];
    places.push("/admin/data/10000", "/admin/events");
    for (const colorScheme of ["light", "dark"] as const) {
      const viewport = colorScheme === "light"
        ? { width: 1280, height: 800 }
        : { width: 390, height: 844 };
      await withConsole("/admin", async ({ page, cluster }) => {
        for (const port of [10003, 10004, 10007]) cluster.set(port, "stopped");
        cluster.set(8001, "suspect");
        for (const place of places) {
          await page.goto(place);
          await page.waitForSelector(".console");
          assert.deepEqual(await axeFindings(page, AXE_RULES), [], `${place} ${colorScheme}`);
          const wide = await page.evaluate(() =>
            document.querySelector(".main")!.scrollWidth >
              document.querySelector(".main")!.clientWidth
          );
          assert.equal(wide, false, `${place} scrolls sideways`);
        }
      }, { colorScheme, viewport });
    }
  },
);

browserTest(
  "an administrator kills and starts nodes of a real cluster, and writers notice nothing",
  async () => {
    await using cluster = await startCluster({ config: "cluster.toml" });
    const browser = await launchBrowser();
    let writing = true, written = 0, slowestMs = 0;
    const failures: string[] = [];
    const writer = (async () => {
      while (writing) {
        const startedMs = performance.now(), row = `m-row-${written % 50}`;
        const patient = { deadlineMs: 60_000 };
        await put(cluster.kv, row, "c", String(written), patient).then(() => written++, (error) => {
          failures.push(String(error));
        });
        slowestMs = Math.max(slowestMs, performance.now() - startedMs);
      }
    })();
    try {
      const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 } }))
        .newPage();
      page.setDefaultTimeout(120_000);
      await page.goto(`${cluster.baseUrl}/login?next=/admin`);
      await page.getByLabel("User name", { exact: true }).fill("admin");
      await page.getByLabel("Password", { exact: true }).fill(cluster.adminPassword!);
      await page.getByRole("button", { name: "Log in" }).click();
      await verdict(page, "Everything is fine");
      await feedSays(page, "Live view");

      // The primary of the rows that are being written.
      await page.getByRole("link", { name: "All tablets" }).click();
      const row = page.locator(".tablets tbody tr", { hasText: "m to p" });
      const before = await row.locator(".tablets__primary").innerText();
      await row.locator(".tablets__primary a").click();
      await page.getByRole("button", { name: "Kill", exact: true }).click();
      const dialog = page.getByRole("dialog");
      await dialog.getByText("will change primary").waitFor();
      await dialog.getByRole("button", { name: "Kill", exact: true }).click();
      await page.locator(".state-line", { hasText: "Stopped" }).waitFor();
      const sinceKill = written;
      await page.goto(new URL("/admin/tablets", page.url()).href);
      await eventually(
        async () => (await row.locator(".tablets__primary").innerText()) !== before,
        "the primary to move",
        { withinMs: 90_000, everyMs: 100 },
      );
      await eventually(() => written > sinceKill + 20, "writes to go on", { withinMs: 90_000 });

      await page.goto(new URL("/admin", page.url()).href);
      await verdict(page, "Everything works, with less in reserve");
      await page.getByRole("button", { name: `Start ${before}` }).click();
      await verdict(page, "Everything is fine");

      // Raw rows of a backend of that trio, as it has them on its own disk.
      const { port } = cluster.node(before);
      await page.goto(new URL(`/admin/data/${port}?start=m-row-`, page.url()).href);
      await page.locator(".row-block__key", { hasText: "m-row-0" }).first().waitFor();

      // Without its coordinator the cluster serves, and the console says what that means.
      await page.goto(
        new URL(`/admin/nodes/${cluster.node("coordinator/0").port}`, page.url()).href,
      );
      await page.getByRole("button", { name: "Kill", exact: true }).click();
      await dialog.getByText("no new primary can be chosen").waitFor();
      await dialog.getByRole("button", { name: "Kill", exact: true }).click();
      await feedSays(page, "Last known");
      await page.getByRole("link", { name: "Overview" }).click();
      await verdict(page, "The coordinator is away, the rest goes on");
      await page.getByText("coordinator/0", { exact: false }).first().waitFor();
      await page.getByRole("button", { name: "Start coordinator/0" }).click();
      await verdict(page, "Everything is fine");
      await feedSays(page, "Live view");

      // The frontend that serves this page falls over; its supervisor starts it again.
      const own = cluster.config.node.find((node) =>
        node.port === Number(new URL(page.url()).port)
      )!;
      await cluster.crash(`${own.role}/${own.id}`);
      await cluster.waitReady(`${own.role}/${own.id}`);
      const backMs = Date.now();
      await eventually(
        async () => {
          const clock = /as of (\S+)/.exec(await page.locator(".console-head__detail").innerText());
          const day = new Date(backMs).toDateString();
          return new Date(`${day} ${clock?.[1]}`).getTime() > backMs + 1_000;
        },
        "news from the frontend that is back",
        { withinMs: 90_000, everyMs: 100 },
      );
      await feedSays(page, "Live view");
      await verdict(page, "Everything is fine");
    } finally {
      writing = false;
      await writer;
      await browser.close();
    }
    assert.deepEqual(failures, []);
    assert.ok(written > 100, `${written} writes`);
    console.log(`${written} writes, the slowest took ${Math.round(slowestMs)} ms`);
  },
);
