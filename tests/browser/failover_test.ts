/**
 * Somebody works in the browser while machines die: the frontend that serves the page and the
 * primaries of the mailboxes are killed with -9 between writing a mail and sending it, and while a file is
 * uploaded. Nothing is lost, nothing arrives twice, and nobody has to start again.
 *
 * On the default cluster of nine backends and three frontends, as real processes.
 */
import assert from "node:assert/strict";
import type { Browser, Page } from "playwright-core";
import { eventually } from "../eventually.ts";
import { startCluster, type TestCluster } from "../cluster/harness.ts";
import { launchBrowser } from "./browser.ts";

const PASSWORD = "a sparrow on the fence";

async function withCluster(
  work: (cluster: TestCluster, browser: Browser) => Promise<void>,
): Promise<void> {
  await using cluster = await startCluster({ config: "cluster.toml" });
  const browser = await launchBrowser();
  try {
    await work(cluster, browser);
  } finally {
    await browser.close();
  }
}

async function signUp(browser: Browser, cluster: TestCluster, name: string): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  await page.goto(`${cluster.baseUrl}/signup`);
  await page.getByLabel("User name", { exact: true }).fill(name);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByRole("button", { name: "Create account" }).click();
  await page.getByRole("heading", { name: `Hello, ${name}` }).waitFor();
  return page;
}

/** The primary of the tablet that a row lies in, and the frontend that a page came from. */
async function primaryOf(cluster: TestCluster, row: string): Promise<string> {
  const status = JSON.parse((await cluster.penncloud(["admin", "status", "--json"])).stdout);
  const tablet = status.tablets.findLast((item: { startKey: string }) => item.startKey <= row);
  return `backend/${tablet.primary}`;
}

function frontendOf(cluster: TestCluster, page: Page): string {
  const port = Number(new URL(page.url()).port);
  const node = cluster.config.node.find((item) => item.port === port)!;
  return `${node.role}/${node.id}`;
}

interface Summary {
  readonly subject: string;
}

async function inbox(page: Page): Promise<Summary[]> {
  return await page.evaluate(async () => {
    const response = await fetch("/api/v1/mail/messages?folder=INBOX");
    return response.ok ? (await response.json()).messages : [];
  });
}

/** Playwright keeps its own timers and pipes. */
const journey = (name: string, work: Parameters<typeof withCluster>[0]) =>
  Deno.test({ name, sanitizeOps: false, sanitizeResources: false, fn: () => withCluster(work) });

journey(
  "a mail written while its frontend and the primaries die is sent once and read",
  async (cluster, browser) => {
    const alice = await signUp(browser, cluster, "alice");
    const zoe = await signUp(browser, cluster, "zoe");
    await alice.goto(new URL("/mail", alice.url()).href);
    await alice.getByRole("button", { name: "Compose" }).first().click();
    const dialog = alice.getByRole("dialog");
    await dialog.getByLabel("To", { exact: true }).fill("zoe@penncloud.test");
    await dialog.getByLabel("Subject").fill("Through the storm");
    await dialog.getByLabel("Message").fill("Written while machines fell over.");

    await cluster.crash(frontendOf(cluster, alice));
    await cluster.crash(await primaryOf(cluster, "alice/mail"));
    await cluster.crash(await primaryOf(cluster, "zoe/mail"));
    await dialog.getByRole("button", { name: "Send", exact: true }).click();

    await zoe.goto(new URL("/mail", zoe.url()).href);
    await eventually(
      async () => (await inbox(zoe)).some((message) => message.subject === "Through the storm"),
      "the mail to arrive",
      { withinMs: 90_000, everyMs: 300 },
    );
    await zoe.locator(".mail-row__subject", { hasText: "Through the storm" }).click();
    await zoe.getByText("Written while machines fell over.").first().waitFor();
    const copies = (await inbox(zoe)).filter((message) => message.subject === "Through the storm");
    assert.equal(copies.length, 1);
  },
);

journey(
  "an upload in the browser goes on when its frontend dies, and the bytes are equal",
  async (cluster, browser) => {
    const page = await signUp(browser, cluster, "mila");
    await page.goto(new URL("/drive", page.url()).href);
    const bytes = new Uint8Array(48 * 1024 * 1024);
    for (let at = 0; at < bytes.length; at += 65_536) {
      crypto.getRandomValues(bytes.subarray(at, at + 65_536));
    }
    const dir = await Deno.makeTempDir({ prefix: "penncloud-upload-" });
    try {
      const path = `${dir}/song.bin`;
      await Deno.writeFile(path, bytes);
      const chooser = page.waitForEvent("filechooser");
      await page.getByRole("button", { name: "New", exact: true }).first().click();
      await page.getByRole("menuitem", { name: "Upload files" }).click();
      await (await chooser).setFiles(path);
      await cluster.crash(frontendOf(cluster, page));
      await cluster.crash(await primaryOf(cluster, "mila/drive"));
      let id: string | undefined;
      await eventually(
        async () => {
          id = await page.evaluate(async () => {
            const response = await fetch("/api/v1/drive/items/root").catch(() => null);
            if (response?.ok !== true) return undefined;
            const { children } = await response.json();
            return children.find((item: { name: string }) => item.name === "song.bin")?.id;
          });
          return id !== undefined;
        },
        "the upload to end",
        { withinMs: 90_000, everyMs: 500 },
      );
      const cookies = await page.context().cookies();
      const cookie = cookies.map(({ name, value }) => `${name}=${value}`).join("; ");
      const url = new URL(`/api/v1/drive/items/${id}/content`, page.url());
      const response = await fetch(url, { headers: { cookie } });
      const received = new Uint8Array(await response.arrayBuffer());
      assert.equal(received.length, bytes.length);
      const hash = async (data: Uint8Array<ArrayBuffer>) =>
        new Uint8Array(await crypto.subtle.digest("SHA-256", data)).toHex();
      assert.equal(await hash(received), await hash(bytes));
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  },
);
