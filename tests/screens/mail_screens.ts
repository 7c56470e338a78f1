/** Mail: lists, messages, writing, and what it looks like when nothing is there or the store is away. */
import { Buffer } from "node:buffer";
import type { Page } from "playwright-core";
import type { Screen } from "./screen.ts";

const listed = async (page: Page) => void await page.waitForSelector(".mail-row");

async function openFirst(page: Page): Promise<void> {
  await listed(page);
  await page.locator(".mail-row__link").first().click();
  await page.waitForSelector(".message__subject");
}

async function compose(page: Page): Promise<void> {
  await page.waitForSelector(".mail-list");
  await page.keyboard.press("c");
  await page.waitForSelector(".compose");
}

export const screens: readonly Screen[] = [
  { name: "mail-inbox", path: "/mail", user: "alice", prepare: listed },
  { name: "mail-message", path: "/mail", user: "alice", prepare: openFirst },
  {
    name: "mail-selected",
    path: "/mail",
    user: "alice",
    prepare: async (page) => {
      await listed(page);
      for (const key of ["j", "x", "j", "x"]) await page.keyboard.press(key);
      await page.waitForSelector(".mail-bar--selection");
    },
  },
  {
    name: "mail-compose",
    path: "/mail",
    user: "alice",
    prepare: async (page) => {
      await compose(page);
      await page.fill("#compose-to", "bob@penncloud.test, not an address,");
      await page.fill(".compose__subject", "Apple trees");
      await page.fill(".compose__text", "Dear Bob,\n\nshall we plant them on Saturday?\n\nAlice");
      await page.setInputFiles(".compose input[type=file]", {
        name: "Garden plan.pdf",
        mimeType: "application/pdf",
        buffer: Buffer.alloc(184_000),
      });
      await page.waitForSelector(".attachment-row:not(:has(.progress))");
      await page.waitForFunction(() =>
        document.querySelector(".compose__saved")?.textContent === "Saved"
      );
    },
  },
  {
    name: "mail-reply",
    path: "/mail",
    user: "alice",
    prepare: async (page) => {
      await openFirst(page);
      await page.keyboard.press("r");
      await page.waitForSelector(".compose");
    },
  },
  {
    name: "mail-search",
    path: "/mail/search?q=thursday",
    user: "alice",
    prepare: listed,
  },
  {
    name: "mail-empty",
    path: "/mail/archive",
    user: "zoe",
    prepare: async (page) => void await page.waitForSelector(".mail-list .state"),
  },
  {
    name: "mail-keys",
    path: "/mail",
    user: "alice",
    prepare: async (page) => {
      await listed(page);
      await page.keyboard.press("?");
      await page.waitForSelector(".shortcuts");
    },
  },
];
