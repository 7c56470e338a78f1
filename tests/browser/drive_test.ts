/**
 * The drive in a real browser: folders, uploads with conflicts, names, moves, trash and undo,
 * previews that seek, everything by keyboard, ten thousand files, and a store that goes away in the
 * middle of an upload. Over a store in memory; a browser against a cluster is failover_test.ts.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { KvError } from "../../kv/errors.ts";
import { type DevServer, startDevServer } from "../dev_server.ts";
import { eventually } from "../eventually.ts";
import { pseudoRandomBytes } from "../apps/drive/drive_fixture.ts";
import { axeFindings } from "./axe.ts";
import { launchBrowser } from "./browser.ts";

const USER = "alice", PASSWORD = "a sparrow on the fence";

interface House {
  readonly server: DevServer;
  readonly browser: Browser;
  readonly context: BrowserContext;
  readonly page: Page;
  readonly store: { failWith: KvError | null };
  /** What a policy refused, and errors of scripts. */
  readonly complaints: string[];
}

async function withHouse(work: (house: House) => Promise<void>): Promise<void> {
  const store: House["store"] = { failWith: null };
  const server = await startDevServer({
    samples: false,
    beforeStoreCall: () => {
      if (store.failWith !== null) throw store.failWith;
    },
  });
  try {
    await server.context.accounts.create({ username: USER, password: PASSWORD });
    const browser = await launchBrowser();
    try {
      const context = await browser.newContext({ acceptDownloads: true });
      const complaints: string[] = [];
      context.on("console", (message) => {
        const expected = /status of [45]\d\d/.test(message.text());
        if (message.type() === "error" && !expected) complaints.push(message.text());
      });
      context.on("weberror", (error) => complaints.push(String(error.error())));
      const answer = await context.request.post(`${server.origin}/api/v1/session`, {
        data: { username: USER, password: PASSWORD },
      });
      assert(answer.ok());
      const page = await context.newPage();
      await work({ server, browser, context, page, store, complaints });
      assert.deepEqual(complaints, []);
    } finally {
      await browser.close();
    }
  } finally {
    store.failWith = null;
    await server.stop();
  }
}

const test = (name: string, work: (house: House) => Promise<void>) =>
  Deno.test(`browser: ${name}`, () => withHouse(work));

const text = (value: string) => new TextEncoder().encode(value);

async function put(
  { server }: House,
  name: string,
  bytes: Uint8Array,
  parent = "root",
): Promise<string> {
  const body = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream();
  const request = { parent, name, conflict: "fail" } as const;
  return (await server.context.drive.upload(USER, request, { size: bytes.length, body })).id;
}
const folder = async ({ server }: House, name: string, parent = "root") =>
  (await server.context.drive.createFolder(USER, { parent, name })).id;

async function names({ server }: House, id = "root"): Promise<string[]> {
  const { children } = await server.context.drive.open(USER, id, { limit: 1000 });
  return children.map((item) => item.name);
}

const row = (page: Page, name: string) =>
  page.locator(".drive-row:not(.drive-row--head)").filter({ hasText: name });
const link = (page: Page, name: string) => page.locator("a.item-name", { hasText: name });
const button = (page: Page, name: string) => page.getByRole("button", { name, exact: true });

async function openDrive({ page, server }: House, path = "/drive"): Promise<void> {
  await page.goto(server.origin + path);
  await page.waitForSelector(".drive-bar__count");
}

async function upload(page: Page, files: { name: string; bytes: Uint8Array }[]): Promise<void> {
  // The listener needs a moment to be there before the dialog opens.
  const [chooser] = await Promise.all([
    page.waitForEvent("filechooser"),
    page.evaluate(() => 0).then(() => page.keyboard.press("u")),
  ]);
  await chooser.setFiles(files.map(({ name, bytes }) => ({
    name,
    mimeType: "application/octet-stream",
    buffer: Buffer.from(bytes),
  })));
}

test("new folder, into it, rename, up again; Back and reload know where we are", async (house) => {
  const { page } = house;
  await openDrive(house);
  await button(page, "New").click();
  await page.getByRole("menuitem", { name: "New folder" }).click();
  await page.getByLabel("Name", { exact: true }).fill("Papers");
  await button(page, "Create").click();
  await link(page, "Papers").click();
  await page.waitForURL("**/drive/folder/*");
  await page.getByText("This folder is empty").waitFor();
  await page.goBack();
  await row(page, "Papers").click();
  await page.keyboard.press("F2");
  await page.locator(".item-rename").fill("Letters");
  await page.keyboard.press("Enter");
  await link(page, "Letters").waitFor();
  await eventually(async () => (await names(house)).join() === "Letters", "the new name");
  await page.reload();
  await link(page, "Letters").waitFor();

  await page.keyboard.press("n");
  await page.getByLabel("Name", { exact: true }).fill("Letters");
  await button(page, "Create").click();
  await page.getByText('There is already something named "Letters"').waitFor();
  await page.keyboard.press("Escape");
});

test("uploads several files, asks about names that are taken, and stores the right bytes", async (house) => {
  const { page, server } = house;
  await put(house, "a.txt", text("old"));
  await put(house, "b.txt", text("old"));
  await openDrive(house);
  const large = pseudoRandomBytes(9_000_001);
  await upload(page, [
    { name: "a.txt", bytes: text("new a") },
    { name: "large.bin", bytes: large },
    { name: "empty.txt", bytes: new Uint8Array(0) },
  ]);
  await page.getByText("This name is taken").first().waitFor();
  await button(page, "Keep both").click();
  await page.getByText("3 files stored").waitFor();
  await link(page, "a (2).txt").waitFor();
  await upload(page, [{ name: "b.txt", bytes: text("new b") }]);
  await button(page, "Replace").click();
  await page.getByText("1 file stored").waitFor();
  assert.deepEqual(await names(house), ["a (2).txt", "a.txt", "b.txt", "empty.txt", "large.bin"]);
  const { children } = await server.context.drive.open(USER, "root");
  const content = async (name: string) => {
    const { id } = children.find((item) => item.name === name)!;
    const response = await page.request.get(`${server.origin}/api/v1/drive/items/${id}/content`);
    return new Uint8Array(await response.body());
  };
  assert.deepEqual(await content("large.bin"), large);
  assert.deepEqual(await content("b.txt"), text("new b"));
  assert.deepEqual(await content("a.txt"), text("old"));
});

test("files and folders dropped on the page are uploaded with their folders", async (house) => {
  const { page } = house;
  await openDrive(house);
  // A drag tells all the time that it is still there.
  await page.evaluate(() => {
    const data = new DataTransfer();
    data.items.add(new File(["dropped"], "dropped.txt"));
    const options = { dataTransfer: data, bubbles: true, cancelable: true };
    setInterval(() => document.body.dispatchEvent(new DragEvent("dragover", options)), 50);
  });
  await page.getByText("Drop to upload to My drive").waitFor();
  await page.evaluate(() => {
    const data = new DataTransfer();
    data.items.add(new File(["dropped"], "dropped.txt"));
    const options = { dataTransfer: data, bubbles: true, cancelable: true };
    document.body.dispatchEvent(new DragEvent("drop", options));
  });
  await page.getByText("1 file stored").waitFor();
  assert.deepEqual(await names(house), ["dropped.txt"]);

  // A folder from the dialog for folders, which gives paths instead of entries.
  const tree = await Deno.makeTempDir();
  try {
    await Deno.mkdir(`${tree}/Trip/Day 1`, { recursive: true });
    await Deno.writeTextFile(`${tree}/Trip/plan.txt`, "plan");
    await Deno.writeTextFile(`${tree}/Trip/Day 1/boat.txt`, "boat");
    await button(page, "New").click();
    const [chooser] = await Promise.all([
      page.waitForEvent("filechooser"),
      page.getByRole("menuitem", { name: "Upload a folder" }).click(),
    ]);
    await chooser.setFiles(`${tree}/Trip`);
    await page.getByText("2 files stored").waitFor();
  } finally {
    await Deno.remove(tree, { recursive: true });
  }
  await link(page, "Trip").click();
  await link(page, "Day 1").click();
  await link(page, "boat.txt").waitFor();
});

test("moves by dialog and by dragging, and takes it back", async (house) => {
  const { page } = house;
  const papers = await folder(house, "Papers"), old = await folder(house, "Old", papers);
  await put(house, "letter.txt", text("x"));
  await put(house, "note.txt", text("y"));
  await openDrive(house);
  await row(page, "letter.txt").click();
  await page.keyboard.press("m");
  const tree = page.getByRole("tree");
  await button(page, "Open Papers").click();
  await tree.getByText("Old", { exact: true }).click();
  await button(page, "Move here").click();
  await page.getByText("“letter.txt” moved to Old").waitFor();
  assert.deepEqual(await names(house, old), ["letter.txt"]);
  await page.getByRole("button", { name: "Undo" }).click();
  await link(page, "letter.txt").waitFor();

  await row(page, "note.txt").dragTo(row(page, "Papers"));
  await page.getByText("“note.txt” moved to Papers").waitFor();
  assert.deepEqual(await names(house, papers), ["Old", "note.txt"]);
  await eventually(
    async () => (await names(house)).join() === "Papers,letter.txt",
    "the move back",
  );
  assert.equal(await row(page, "note.txt").count(), 0);

  // A folder is not offered as its own target.
  await row(page, "Papers").click();
  await page.keyboard.press("m");
  await tree.getByText("My drive").waitFor();
  assert.equal(await tree.getByText("Papers").count(), 0);
  await page.keyboard.press("Escape");
});

test("deletes to the trash, undoes, restores, and deletes for good", async (house) => {
  const { page } = house;
  for (const name of ["one", "two", "three"]) await put(house, name, text(name));
  await openDrive(house);
  await row(page, "one").getByLabel("Select one").check();
  await row(page, "two").getByLabel("Select two").check();
  await page.getByText("2 selected").waitFor();
  await page.keyboard.press("Delete");
  await page.getByText("2 items moved to the trash").waitFor();
  assert.deepEqual(await names(house), ["three"]);
  await page.getByRole("button", { name: "Undo" }).click();
  await link(page, "one").waitFor();
  await eventually(async () => (await names(house)).length === 3, "both items back");

  await row(page, "two").click();
  await page.keyboard.press("Delete");
  await page.locator(".side-panel").getByText("Trash").click();
  await row(page, "two").click();
  await button(page, "Restore").click();
  await page.getByText("“two” restored").waitFor();
  await page.getByText("The trash is empty").waitFor();
  await page.locator(".side-panel").getByText("My drive").click();
  await row(page, "three").click();
  await page.keyboard.press("Delete");
  await page.getByText("“three” moved to the trash").waitFor();
  await page.locator(".side-panel").getByText("Trash").click();
  await button(page, "Empty the trash").click();
  await page.getByRole("dialog").getByRole("button", { name: "Empty the trash" }).click();
  await page.locator(".state").getByText("The trash is empty").waitFor();
  assert.deepEqual(await names(house), ["one", "two"]);
});

test("previews pictures, text and sound; arrow keys go on; sound seeks by ranges", async (house) => {
  const { page } = house;
  await put(
    house,
    "1 heron.svg",
    text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
  );
  await put(house, "2 sieve.ts", text("// a sieve\nconst primes = [2, 3];\n"));
  await put(house, "3 tone.wav", wav(60));
  await put(house, "4 odd.xyz", pseudoRandomBytes(100_000));
  const ranges: string[] = [];
  page.on("response", (response) => {
    if (response.status() === 206) ranges.push(response.headers()["content-range"]!);
  });
  await openDrive(house);
  await link(page, "1 heron.svg").click();
  await page.waitForFunction(() =>
    (document.querySelector(".picture img") as HTMLImageElement | null)?.naturalWidth === 9
  );
  assert.match(page.url(), /\?preview=/);
  await page.keyboard.press("ArrowRight");
  await page.locator(".code-keyword", { hasText: "const" }).waitFor();
  await page.keyboard.press("ArrowRight");
  await page.waitForFunction(() => (document.querySelector("audio")?.duration ?? 0) > 59);
  await page.evaluate(() => {
    const sound = document.querySelector("audio")!;
    sound.muted = true;
    sound.currentTime = 50;
  });
  await page.waitForFunction(() => {
    const sound = document.querySelector("audio")!;
    return !sound.seeking && sound.currentTime >= 50;
  });
  assert(ranges.length > 0, "the browser asked for ranges");
  await page.keyboard.press("ArrowRight");
  await page.getByText("There is no preview for this kind of file.").waitFor();
  const [saved] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: /^Download 100/ }).click(),
  ]);
  assert.equal(saved.suggestedFilename(), "4 odd.xyz");
  const address = page.url();
  await page.keyboard.press("Escape");
  await page.waitForURL("**/drive");
  await page.goto(address);
  await page.locator(".preview__name", { hasText: "4 odd.xyz" }).waitFor();
});

test("an uploaded page cannot run script in our origin", async (house) => {
  const { page, server } = house;
  const id = await put(house, "evil.html", text("<script>document.title='owned'</script>hello"));
  await openDrive(house);
  await link(page, "evil.html").click();
  await page.locator(".preview__text pre", { hasText: "<script>" }).waitFor();
  await page.keyboard.press("Escape");
  // Even when a frame of our own page would show it.
  const owned = await page.evaluate(async (url) => {
    const frame = document.createElement("iframe");
    frame.src = url;
    document.body.append(frame);
    await new Promise((resolve) => setTimeout(resolve, 400));
    return frame.contentDocument?.title ?? "";
  }, `${server.origin}/api/v1/drive/items/${id}/content`);
  assert.notEqual(owned, "owned");
  house.complaints.length = 0; // The policy may have spoken up, which is its task.
});

test("all of it by keyboard", async (house) => {
  const { page } = house;
  await folder(house, "Papers");
  for (const name of ["a.txt", "b.txt", "c.txt"]) await put(house, name, text(name));
  await openDrive(house);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/folder/*");
  await page.keyboard.press("Backspace");
  await page.waitForURL("**/drive");
  await row(page, "a.txt").waitFor();
  for (const key of ["End", "Shift+ArrowUp", "Delete"]) await page.keyboard.press(key);
  await page.getByText("2 items moved to the trash").waitFor();
  assert.deepEqual(await names(house), ["Papers", "a.txt"]);
  await page.keyboard.press("v");
  await page.locator(".drive-tile").first().waitFor();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("F2");
  await page.keyboard.type("renamed");
  await page.keyboard.press("Enter");
  await eventually(async () => (await names(house)).includes("renamed.txt"), "the new name");
  await page.keyboard.press("/");
  await page.keyboard.type("renam");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/search?q=renam");
  await page.getByText("1 item", { exact: true }).waitFor();
  await page.evaluate(() => (document.activeElement as HTMLElement).blur());
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
});

test("a folder of ten thousand files is there at once and scrolls to its end", async (house) => {
  const { page } = house;
  const many = await folder(house, "Many");
  for (let start = 0; start < 10_000; start += 100) {
    await Promise.all(
      Array.from(
        { length: 100 },
        (_, i) => put(house, `file ${start + i}.txt`, new Uint8Array(0), many),
      ),
    );
  }
  await openDrive(house);
  await link(page, "Many").click();
  const startedMs = performance.now();
  await link(page, "file 0.txt").waitFor();
  const firstMs = performance.now() - startedMs;
  await page.getByText("10,000 items").waitFor();
  const allMs = performance.now() - startedMs;
  await page.keyboard.press("End");
  await link(page, "file 9999.txt").waitFor();
  const drawn = await page.locator(".drive-row").count();
  assert(drawn < 100, `${drawn} rows are in the page`);
  await page.getByRole("button", { name: "Sort by size" }).click();
  await page.keyboard.press("v");
  await page.locator(".drive-tile").first().waitFor();
  console.log(`10,000 files: first rows ${Math.round(firstMs)} ms, all ${Math.round(allMs)} ms`);
  assert(allMs < 60_000);
});

test("an upload goes on by itself after the store was away, and says so meanwhile", async (house) => {
  const { page, store } = house;
  await openDrive(house);
  const network = await page.context().newCDPSession(page);
  await network.send("Network.emulateNetworkConditions", {
    offline: false,
    latency: 5,
    downloadThroughput: -1,
    uploadThroughput: 6_000_000,
  });
  const bytes = pseudoRandomBytes(12_000_000);
  await upload(page, [{ name: "film.bin", bytes }]);
  await page.locator(".transfer--sending").waitFor();
  store.failWith = new KvError("unavailable", "no primary");
  await page.locator(".transfer--retrying").waitFor();
  await page.getByText("The store is changing over").waitFor();
  store.failWith = null;
  await page.getByText("1 file stored").waitFor({ timeout: 120_000 });
  assert.deepEqual(await names(house), ["film.bin"]);
  await eventually(async () => await page.locator(".banner").count() === 0, "the banner to go");
});

test("an upload is paused, resumed, and resumed again after a reload", async (house) => {
  const { page, server } = house;
  await openDrive(house);
  const network = await page.context().newCDPSession(page);
  const slow = (rate: number) =>
    network.send("Network.emulateNetworkConditions", {
      offline: false,
      latency: 5,
      downloadThroughput: -1,
      uploadThroughput: rate,
    });
  await slow(3_000_000);
  const file = `${await Deno.makeTempDir()}/long.bin`;
  const bytes = pseudoRandomBytes(16_000_000);
  await Deno.writeFile(file, bytes);
  const choose = async () => {
    const [chooser] = await Promise.all([
      page.waitForEvent("filechooser"),
      page.evaluate(() => 0).then(() => page.keyboard.press("u")),
    ]);
    await chooser.setFiles(file);
  };
  await choose();
  await page.locator(".transfer--sending").waitFor();
  await page.getByText(/^[4-9]\.\d MB of 16 MB$/).first().waitFor();
  await button(page, "Pause").click();
  await page.locator(".transfer--paused").waitFor();
  await button(page, "Resume").click();
  await page.locator(".transfer--sending").waitFor();
  page.on("dialog", (dialog) => void dialog.accept());
  await page.reload();
  await page.waitForSelector(".drive-bar__count");
  const offsets: number[] = [];
  page.on("response", (response) => {
    const offset = response.headers()["upload-offset"];
    if (response.request().method() === "HEAD") offsets.push(Number(offset));
  });
  await slow(-1);
  await choose();
  await page.getByText("1 file stored").waitFor();
  assert(offsets[0]! > 3_000_000, `it went on from byte ${offsets[0]}`);
  const { children } = await server.context.drive.open(USER, "root");
  const url = `${server.origin}/api/v1/drive/items/${children[0]!.id}/content`;
  assert.deepEqual(new Uint8Array(await (await page.request.get(url)).body()), bytes);
});

test("a phone shows the same, and screen readers are told what is what", async (house) => {
  const { browser, server, context } = house;
  await folder(house, "Papers");
  await put(house, "a.txt", text("hello"));
  const phone = await browser.newContext({
    viewport: { width: 390, height: 844 },
    hasTouch: true,
    isMobile: true,
    storageState: await context.storageState(),
  });
  const page = await phone.newPage();
  await page.goto(`${server.origin}/drive`);
  assert.deepEqual(await findProblems(page, "a.item-name"), []);
  await page.locator(".drive-row", { hasText: "Papers" }).tap();
  await page.getByText("This folder is empty").waitFor();
  assert.deepEqual(await findProblems(page, ".state"), []);
  await page.getByRole("link", { name: "Up" }).tap();
  await page.locator("a.item-name", { hasText: "a.txt" }).tap();
  await page.locator(".preview__text pre", { hasText: "hello" }).waitFor();
  assert.deepEqual(await findProblems(page, ".preview"), []);
  await house.page.goto(`${server.origin}/drive`);
  await house.page.keyboard.press("v");
  assert.deepEqual(await findProblems(house.page, ".drive-tile"), []);
  await house.page.keyboard.press("i");
  assert.deepEqual(await findProblems(house.page, ".details"), []);
  await phone.close();
});

async function findProblems(page: Page, selector: string): Promise<string[]> {
  await page.waitForSelector(selector);
  return await axeFindings(page);
}

/** Silence of so many seconds, 8 bits at 16 kHz: large enough that a browser asks for parts. */
function wav(seconds: number): Uint8Array {
  const samples = seconds * 16_000;
  const bytes = new Uint8Array(44 + samples).fill(128);
  const view = new DataView(bytes.buffer);
  bytes.set(text("RIFF"), 0);
  view.setUint32(4, 36 + samples, true);
  bytes.set(text("WAVEfmt "), 8);
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, 16_000, true);
  view.setUint32(28, 16_000, true);
  view.setUint16(32, 1, true);
  view.setUint16(34, 8, true);
  bytes.set(text("data"), 36);
  view.setUint32(40, samples, true);
  return bytes;
}
