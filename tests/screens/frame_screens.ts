/** The pages of the frame: before the door, home, account, errors, and every component at once. */
import type { Screen } from "./screen.ts";

export const frameScreens: readonly Screen[] = [
  { name: "login", path: "/login" },
  {
    name: "login-wrong",
    path: "/login",
    prepare: async (page) => {
      await page.fill("#field-username", "alice");
      await page.fill("#field-password", "not my password");
      await page.click("button[type=submit]");
      await page.waitForSelector(".field__error");
    },
  },
  { name: "signup", path: "/signup" },
  {
    name: "signup-taken",
    path: "/signup",
    prepare: async (page) => {
      await page.fill("#field-username", "bob");
      await page.fill("#field-password", "a sparrow on the fence");
      await page.click("button[type=submit]");
      await page.waitForSelector(".field__error");
    },
  },
  { name: "home", path: "/", user: "alice" },
  { name: "home-admin", path: "/", user: "admin" },
  { name: "account", path: "/account", user: "alice" },
  {
    name: "account-app-password",
    path: "/account",
    user: "zoe",
    prepare: async (page) => {
      await page.fill("#field-label", "Thunderbird on the laptop");
      await page.click("#app-passwords .form--row button");
      await page.waitForSelector(".secret");
      await page.locator("#app-passwords").scrollIntoViewIfNeeded();
    },
  },
  { name: "not-found", path: "/no/such/page", user: "alice" },
  { name: "store-away", path: "/account", user: "alice", storeAway: true },
  { name: "api-docs", path: "/api/docs" },
  { name: "styleguide", path: "/styleguide", user: "alice", whole: true },
  {
    name: "shell",
    path: "/styleguide/app/inbox",
    user: "alice",
    prepare: async (page, look) => {
      await page.getByRole("button", { name: "Show a toast" }).click();
      if (look.width > 500) await page.getByRole("button", { name: "More" }).click();
      else await page.getByRole("button", { name: "Menu" }).click();
    },
  },
  {
    name: "shell-dialog",
    path: "/styleguide/app/inbox",
    user: "alice",
    prepare: async (page) => {
      await page.getByRole("button", { name: "Open a dialog" }).click();
      await page.getByLabel("Name").fill("Garden");
    },
  },
  {
    name: "shell-away",
    path: "/styleguide/app/inbox",
    user: "alice",
    storeAway: true,
    prepare: async (page) => {
      await page.getByRole("button", { name: "Ask the server" }).click();
      await page.getByText("changing over").waitFor();
    },
  },
];
