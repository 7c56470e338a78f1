/**
 * Chromium for tests and screens: the one from npm (`@sparticuz/chromium`), or any other named by
 * `CHROMIUM=`. It is unpacked once, into `tests/.cache`, and shared by all runs.
 */
import * as path from "node:path";
import type { Browser } from "playwright-core";

const CACHE = path.join(import.meta.dirname!, "..", ".cache");

/** Without a sandbox, since containers run as root; nothing here weakens what pages may do. */
const ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--lang=en-US",
];

export interface BrowserOptions {
  readonly headless?: boolean;
}

/** Starts a browser. The caller closes it. */
export async function launchBrowser(options: BrowserOptions = {}): Promise<Browser> {
  // Both packages read the environment when they are loaded: the folder they unpack into, and a
  // language that charts can parse.
  await Deno.mkdir(CACHE, { recursive: true });
  Deno.env.set("TMPDIR", CACHE);
  Deno.env.set("LANG", "en_US.UTF-8");
  const { chromium } = await import("playwright-core");
  return await chromium.launch({
    executablePath: await executable(),
    headless: options.headless ?? true,
    timeout: 120_000,
    args: ARGS,
  });
}

async function executable(): Promise<string> {
  const named = Deno.env.get("CHROMIUM");
  if (named !== undefined && named !== "") return named;
  // Test files run beside each other: one unpacks, the others wait for it.
  using lock = await Deno.open(path.join(CACHE, "chromium.lock"), { create: true, write: true });
  await lock.lock(true);
  try {
    const { default: packaged } = await import("@sparticuz/chromium");
    return await packaged.executablePath();
  } finally {
    await lock.unlock();
  }
}
