/** Drive: list, grid, details, previews, uploads, dialogs, trash, search, and when nothing is there. */
import { Buffer } from "node:buffer";
import type { Page } from "playwright-core";
import type { Look, Screen } from "./screen.ts";

const listed = async (page: Page) =>
  void await page.waitForSelector(".drive-row--head ~ *, .drive-tile");
const phone = (look: Look) => look.width < 700;

async function open(page: Page, name: string): Promise<void> {
  await listed(page);
  await page.locator(".item-name", { hasText: name }).first().click();
}

async function grid(page: Page): Promise<void> {
  await listed(page);
  await page.getByRole("button", { name: "Grid" }).click();
  await page.waitForSelector(".drive-tile");
}

/** Keys need something in the page to have the focus. */
async function press(page: Page, ...keys: string[]): Promise<void> {
  await listed(page);
  for (const key of keys) await page.keyboard.press(key);
}

async function slowUploads(page: Page): Promise<void> {
  const chooser = page.waitForEvent("filechooser");
  await listed(page);
  const network = await page.context().newCDPSession(page);
  await network.send("Network.emulateNetworkConditions", {
    offline: false,
    latency: 20,
    downloadThroughput: -1,
    uploadThroughput: 350_000,
  });
  await page.keyboard.press("u");
  const file = (name: string, bytes: number) => ({
    name,
    mimeType: "application/octet-stream",
    buffer: Buffer.alloc(bytes),
  });
  await (await chooser).setFiles([
    file("Minutes.pdf", 60_000),
    file("Shopping list.txt", 500),
    file("Boat trip in the early morning with a very long name indeed.mp4", 9_000_000),
    file("Heron at the lake.jpg", 4_000_000),
    file("Garden.tar.gz", 7_000_000),
  ]);
  await page.waitForSelector(".conflict__text");
}

export const screens: readonly Screen[] = [
  { name: "drive-list", path: "/drive", user: "alice", prepare: listed },
  { name: "drive-grid", path: "/drive", user: "alice", prepare: grid },
  {
    name: "drive-folder",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await listed(page);
      if (await page.getByRole("button", { name: "Grid" }).isVisible()) {
        await page.getByRole("button", { name: "Grid" }).click();
      }
      await open(page, "Photos");
      await page.waitForURL("**/folder/*");
      await open(page, "At the lake");
      await page.locator(".breadcrumb__link", { hasText: "At the lake" }).waitFor();
      await page.waitForSelector(".drive-tile img");
      await page.getByRole("button", { name: "List" }).click();
    },
  },
  {
    name: "drive-selected",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await press(page, "Home", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight");
      await page.waitForSelector(".drive-bar--selection");
    },
  },
  {
    name: "drive-menu",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await listed(page);
      await page.locator(".drive-row:not(.drive-row--head)").nth(3).click({ button: "right" });
      await page.waitForSelector(".menu");
    },
  },
  {
    name: "drive-rename",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await press(page, "End", "ArrowUp", "F2");
      await page.waitForSelector(".item-rename");
    },
  },
  {
    name: "drive-new-folder",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await press(page, "n");
      await page.waitForSelector("dialog[open]");
    },
  },
  {
    name: "drive-move",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await press(page, "End", "m");
      await page.locator(".folder-tree").getByText("Papers").waitFor();
      await page.getByRole("button", { name: "Open Photos" }).click();
      await page.locator(".folder-tree").getByText("At the lake").click();
    },
  },
  {
    name: "drive-picture",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await open(page, "Sunset.svg");
      await page.waitForSelector(".picture img");
    },
  },
  {
    name: "drive-code",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await open(page, "sieve.ts");
      await page.waitForSelector(".code-keyword");
    },
  },
  {
    name: "drive-sound",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await open(page, "Music");
      await page.waitForURL("**/folder/*");
      await open(page, "Low tide.wav");
      await page.waitForFunction(() => (document.querySelector("audio")?.duration ?? 0) > 0);
    },
  },
  {
    name: "drive-conflict",
    path: "/drive",
    user: "alice",
    prepare: slowUploads,
  },
  {
    name: "drive-uploads",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await slowUploads(page);
      await page.getByLabel("Do the same for all that follow").check();
      await page.getByRole("button", { name: "Skip" }).click();
      await page.waitForTimeout(3000);
    },
  },
  {
    name: "drive-search",
    path: "/drive/search?q=notes",
    user: "alice",
    prepare: listed,
  },
  {
    name: "drive-trash",
    path: "/drive",
    user: "bob",
    prepare: async (page) => {
      for (const name of ["Old plans", "Drafts of the speech"]) {
        const { origin } = new URL(page.url());
        await page.request.post(`${origin}/api/v1/drive/folders`, {
          data: { parent: "root", name },
        })
          .then(async (answer) => {
            if (!answer.ok()) return;
            const { id } = await answer.json() as { id: string };
            await page.request.delete(`${origin}/api/v1/drive/items/${id}`);
          });
      }
      await page.goto(new URL("/drive/trash", page.url()).href);
      await listed(page);
    },
  },
  {
    name: "drive-empty",
    path: "/drive",
    user: "zoe",
    prepare: async (page) => void await page.waitForSelector(".state"),
  },
  {
    name: "drive-gone",
    path: `/drive/folder/${"a".repeat(26)}`,
    user: "zoe",
    prepare: async (page) => void await page.waitForSelector(".state"),
  },
  {
    name: "drive-keys",
    path: "/drive",
    user: "alice",
    prepare: async (page, look) => {
      if (!phone(look)) await press(page, "?");
      else await listed(page);
    },
  },
  // Last, because the browser remembers that the panel is open.
  {
    name: "drive-details",
    path: "/drive",
    user: "alice",
    prepare: async (page) => {
      await press(page, "End", "ArrowUp", "i");
      await page.waitForSelector(".details__facts");
    },
  },
];
