/**
 * Pictures of every page, light and dark, on a desktop and on a phone, with sample data:
 *
 *     deno task screens [part of a name …]
 *
 * They land in `tests/screens/out/`. Look at each; fix what you would not ship. An application adds
 * its screens in `<app>_screens.ts`, which exports a list of `Screen`s.
 */
import * as path from "node:path";
import type { Browser, BrowserContext } from "playwright-core";
import { launchBrowser } from "../browser/browser.ts";
import { type DevServer, startDevServer } from "../dev_server.ts";
import { SAMPLE_PASSWORD } from "../sample_data.ts";
import { frameScreens } from "./frame_screens.ts";
import type { Look, Screen } from "./screen.ts";

const OUT = path.join(import.meta.dirname!, "out");

export const LOOKS: readonly Look[] = [
  { name: "desktop-light", width: 1440, height: 900, theme: "light" },
  { name: "desktop-dark", width: 1440, height: 900, theme: "dark" },
  { name: "phone-light", width: 390, height: 844, theme: "light" },
  { name: "phone-dark", width: 390, height: 844, theme: "dark" },
];

/** Screens of the applications, where they exist. */
async function allScreens(): Promise<Screen[]> {
  const screens = [...frameScreens];
  for await (const entry of Deno.readDir(import.meta.dirname!)) {
    if (!entry.name.endsWith("_screens.ts") || entry.name === "frame_screens.ts") continue;
    const module = await import(`./${entry.name}`) as { screens: Screen[] };
    screens.push(...module.screens);
  }
  return screens;
}

async function takeScreens(wanted: readonly string[]): Promise<number> {
  await Deno.mkdir(OUT, { recursive: true });
  const screens = (await allScreens()).filter((screen) =>
    wanted.length === 0 || wanted.some((part) => screen.name.includes(part))
  );
  // The page that shows a store that is away needs one that is.
  const store = { away: false };
  const server = await startDevServer({
    beforeStoreCall: async () => {
      if (!store.away) return;
      const { KvError } = await import("../../kv/errors.ts");
      throw new KvError("unavailable", "no primary");
    },
  });
  const browser = await launchBrowser();
  let count = 0;
  try {
    for (const look of LOOKS) {
      const sessions = new Map<string, BrowserContext>();
      for (const screen of screens) {
        const user = screen.user ?? "";
        let context = sessions.get(user);
        if (context === undefined) {
          context = await openSession(browser, server, look, user);
          sessions.set(user, context);
        }
        await takeScreen({ server, context, screen, look, store });
        count++;
      }
      for (const context of sessions.values()) await context.close();
    }
  } finally {
    await browser.close();
    await server.stop();
  }
  return count;
}

async function openSession(
  browser: Browser,
  server: DevServer,
  look: Look,
  user: string,
): Promise<BrowserContext> {
  const context = await browser.newContext({
    viewport: { width: look.width, height: look.height },
    colorScheme: look.theme,
    deviceScaleFactor: look.width < 500 ? 2 : 1,
    hasTouch: look.width < 500,
    isMobile: look.width < 500,
    locale: "en-US",
  });
  if (user !== "") {
    const answer = await context.request.post(`${server.origin}/api/v1/session`, {
      data: { username: user, password: SAMPLE_PASSWORD },
    });
    if (!answer.ok()) throw new Error(`Cannot log in as ${user}: ${await answer.text()}`);
  }
  return context;
}

async function takeScreen(options: {
  server: DevServer;
  context: BrowserContext;
  screen: Screen;
  look: Look;
  store: { away: boolean };
}): Promise<void> {
  const { server, context, screen, look, store } = options;
  const page = await context.newPage();
  page.on("console", (message) => {
    if (message.type() !== "error" || message.text().includes("Failed to load resource")) return;
    console.error(`${screen.name}: ${message.text()}`);
  });
  page.on("pageerror", (error) => console.error(`${screen.name}: ${error.message}`));
  try {
    store.away = screen.storeAway ?? false;
    await page.goto(server.origin + screen.path, { waitUntil: "load" });
    await screen.prepare?.(page, look);
    // Whatever moves has come to rest.
    await page.waitForTimeout(250);
    const file = path.join(OUT, `${screen.name}-${look.name}.png`);
    await page.screenshot({ path: file, fullPage: screen.whole ?? false });
  } catch (error) {
    console.error(`${screen.name} (${look.name}): ${(error as Error).message}`);
  } finally {
    store.away = false;
    await page.close();
  }
}

if (import.meta.main) {
  const count = await takeScreens(Deno.args);
  console.log(`${count} pictures in ${path.relative(Deno.cwd(), OUT)}`);
}
