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
    name: "mail-formatted",
    path: "/mail",
    user: "bob",
    prepare: async (page) => {
      await page.waitForSelector(".mail-list");
      await page.evaluate(() =>
        fetch("/api/v1/mail/messages", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({
            id: "qscreenformattedmail",
            to: "bob@penncloud.test",
            cc: "alice@penncloud.test",
            subject: "The programme for the summer festival",
            html: '<div style="background-color:#0d6b58;color:#fff;padding:24px">' +
              '<h1 style="margin:0">Summer festival</h1><p>Two days by the lake</p></div>' +
              "<p>Dear friends,</p><p>here is the <b>programme</b>. Doors open at <i>six</i>.</p>" +
              '<table cellpadding="8" border="1" style="border-collapse:collapse"><tr><th>Time</th>' +
              "<th>What</th></tr><tr><td>18:00</td><td>Opening</td></tr><tr><td>19:30</td>" +
              '<td>Concert</td></tr></table><img src="https://else.example/banner.png" width="200">',
            attachments: [
              {
                filename: "Map of the grounds.png",
                contentType: "image/png",
                content:
                  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgyJ30HwADNAHVIB6" +
                  "7CQAAAABJRU5ErkJggg==",
              },
              {
                filename: "Programme.pdf",
                contentType: "application/pdf",
                content: "JVBERi0xLjQK",
              },
            ],
          }),
        }).then((answer) => answer.text())
      );
      const row = page.locator(".mail-row__link", { hasText: "summer festival" });
      await row.first().click();
      await page.waitForSelector(".message__frame");
      await page.waitForTimeout(300);
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
    name: "mail-folders",
    path: "/mail",
    user: "alice",
    prepare: async (page, look) => {
      await listed(page);
      if (look.width < 1100) await page.getByRole("button", { name: "Menu" }).click();
    },
  },
  { name: "mail-store-away", path: "/mail", user: "alice", storeAway: true },
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
