/** The console: calm, in each kind of trouble, and without news. */
import type { Page } from "playwright-core";
import type { Screen } from "./screen.ts";

const post = (page: Page, order: string) =>
  page.request.post(new URL(`/api/v1/admin/nodes/${order}`, page.url()).href);

/** Takes back what an earlier screen did to the cluster. */
async function makeWhole(page: Page): Promise<void> {
  const answer = await page.request.get(new URL("/api/v1/admin/cluster", page.url()).href);
  const { nodes } = await answer.json() as { nodes: { port: number; state: string }[] };
  for (const { port } of nodes.filter((node) => node.state !== "live")) {
    await post(page, `${port}/restart`);
  }
}

/** Charts draw their first strokes after a few seconds. */
async function watched(page: Page, selector: string, ms = 3_200): Promise<void> {
  await makeWhole(page);
  await page.waitForSelector(selector);
  await page.waitForTimeout(ms);
}

const quickly = (selector: string) => (page: Page) => watched(page, selector, 1_200);

/** Gives orders as the buttons do, and waits until the page has seen what they did. */
const afterOrders = (orders: readonly string[], selector: string) => async (page: Page) => {
  await watched(page, selector, 1_200);
  for (const order of orders) {
    await post(page, order);
    if (order.endsWith("/restart")) await page.waitForTimeout(1_100);
  }
  await page.waitForTimeout(2_400);
};

const user = "admin";

export const screens: readonly Screen[] = [
  { name: "admin-overview", path: "/admin", user, prepare: (page) => watched(page, ".verdict") },
  {
    name: "admin-overview-less",
    path: "/admin",
    user,
    prepare: afterOrders(["10003/kill", "8001/kill"], ".verdict"),
  },
  {
    name: "admin-overview-harm",
    path: "/admin",
    user,
    prepare: afterOrders(
      ["10003/kill", "10004/kill", "10006/kill", "10007/kill", "10008/kill"],
      ".verdict",
    ),
  },
  {
    name: "admin-overview-no-coordinator",
    path: "/admin",
    user,
    prepare: afterOrders(["9999/kill"], ".verdict"),
  },
  {
    name: "admin-nodes",
    path: "/admin/nodes",
    user,
    prepare: (page) => watched(page, ".node-card"),
  },
  {
    name: "admin-nodes-less",
    path: "/admin/nodes",
    user,
    prepare: afterOrders(["10004/kill"], ".node-card"),
  },
  {
    name: "admin-node",
    path: "/admin/nodes/10003",
    user,
    prepare: (page) => watched(page, ".chart"),
  },
  {
    name: "admin-kill",
    path: "/admin/nodes/10003",
    user,
    prepare: async (page) => {
      await watched(page, ".chart", 1_200);
      await page.getByRole("button", { name: "Kill", exact: true }).click();
      await page.waitForSelector("dialog[open]");
    },
  },
  {
    name: "admin-tablets",
    path: "/admin/tablets?tablet=4.1",
    user,
    prepare: quickly(".band__segment"),
  },
  {
    name: "admin-tablets-heat",
    path: "/admin/tablets",
    user,
    prepare: async (page) => {
      await watched(page, ".band__segment", 1_200);
      await page.getByRole("button", { name: "Heat" }).click();
      await page.locator(".band__segment").nth(2).focus();
    },
  },
  {
    name: "admin-tablets-split",
    path: "/admin/tablets?tablet=4.2",
    user,
    prepare: async (page) => {
      await page.waitForSelector(".band__segment");
      // The looks share one server, so only the first of them makes boundaries.
      const url = new URL("/api/v1/admin/tablets/split", page.url()).href;
      for (const key of ["kitten", "lamp", "ladder"]) {
        await page.request.post(url, { data: { key } });
      }
      await watched(page, ".band__segment", 1_200);
    },
  },
  {
    name: "admin-tablets-harm",
    path: "/admin/tablets?tablet=7.1",
    user,
    prepare: afterOrders(
      ["10003/kill", "10004/kill", "10006/kill", "10007/kill", "10008/kill"],
      ".band",
    ),
  },
  {
    name: "admin-data",
    path: "/admin/data/10000",
    user,
    prepare: async (page) => {
      await watched(page, ".row-block", 300);
      await page.locator(".cell__line").nth(1).click();
      await page.waitForSelector(".value__text");
    },
  },
  {
    name: "admin-data-empty",
    path: "/admin/data/10006?start=zzzz",
    user,
    prepare: quickly(".state"),
  },
  {
    name: "admin-events",
    path: "/admin/events",
    user,
    prepare: afterOrders(["10003/kill", "8001/kill", "10003/restart"], ".filters"),
  },
  { name: "admin-events-empty", path: "/admin/events?q=nothing", user, prepare: quickly(".state") },
];
