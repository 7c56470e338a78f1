/** Drafts: no text is lost, none comes back from the dead. */
import assert from "node:assert/strict";
import type { DraftContent } from "../../../apps/mail/drafts.ts";
import { MailError } from "../../../apps/mail/mail_error.ts";
import { folderEntries, makeWorld, textOf } from "./mail_world.ts";

const refusal = (code: string) => (error: unknown) =>
  error instanceof MailError && error.code === code;

const draft = (text: string, more: Partial<DraftContent> = {}): DraftContent => ({
  to: [],
  cc: [],
  bcc: [],
  subject: "",
  text,
  html: "",
  references: [],
  attachments: [],
  ...more,
});

const id = "qdraftmadebyaclient";

Deno.test("a draft is saved again and again as one message, with whatever is in its fields", async () => {
  const { mail } = makeWorld(["ann"]);
  await mail.saveDraft("ann", { id, content: draft("H", { to: ["bob@@"] }), revision: 0 });
  await mail.saveDraft("ann", {
    id,
    content: draft("Hello", { to: ["half an addr"] }),
    revision: 1,
  });
  const entries = await folderEntries(mail, "ann", "Drafts");
  assert.deepEqual(entries.map(({ entry, uid }) => [entry.id, entry.snippet, uid]), [
    [id, "Hello", 2],
  ]);
  assert.deepEqual((await mail.drafts.find("ann", id))?.to, ["half an addr"]);
  assert.equal((await mail.read("ann", id)).content.text, "Hello");
  const folder = (await mail.folders("ann")).find(({ role }) => role === "drafts");
  assert.deepEqual([folder?.total, folder?.unread], [1, 0]);
});

Deno.test("a draft's MIME shows its Bcc and its attachments", async () => {
  const { mail } = makeWorld(["ann"]);
  const upload = await mail.attachments.upload("ann", {
    filename: "a.txt",
    contentType: "text/plain",
    source: [new TextEncoder().encode("attached")],
  });
  const attachments = [{
    filename: "a.txt",
    contentType: "text/plain",
    size: 8,
    upload: upload.id,
  }];
  const bcc = ["eve@else.example"];
  await mail.saveDraft("ann", { id, content: draft("text", { bcc, attachments }) });
  const raw = await textOf((await mail.raw("ann", id)).stream);
  assert.match(raw, /^Bcc: eve@else\.example\r$/m);
  assert.ok(raw.includes(btoa("attached")));
});

Deno.test("two windows cannot overwrite each other's text", async () => {
  const { mail } = makeWorld(["ann"]);
  await mail.saveDraft("ann", { id, content: draft("one"), revision: 0 });
  await mail.saveDraft("ann", { id, content: draft("two"), revision: 1 });
  await assert.rejects(
    mail.saveDraft("ann", { id, content: draft("other"), revision: 1 }),
    refusal("draft_conflict"),
  );
  // The same save again is no conflict: its answer got lost.
  const again = await mail.saveDraft("ann", { id, content: draft("two"), revision: 1 });
  assert.equal(again.saved.revision, 2);
});

Deno.test("sending a draft takes it out of Drafts in the same step, and a late save cannot bring it back", async () => {
  const { mail } = makeWorld(["ann", "bob"]);
  const upload = await mail.attachments.upload("ann", {
    filename: "a.txt",
    contentType: "text/plain",
    source: [new TextEncoder().encode("attached")],
  });
  const attachments = [{
    filename: "a.txt",
    contentType: "text/plain",
    size: 8,
    upload: upload.id,
  }];
  await mail.saveDraft("ann", { id, content: draft("text", { attachments }) });
  await mail.send("ann", {
    id,
    to: "bob@penncloud.test",
    text: "final",
    attachments: [{ upload: upload.id }],
  });
  await mail.worker.idle();
  assert.equal((await folderEntries(mail, "ann", "Drafts")).length, 0);
  const [sent] = await folderEntries(mail, "ann", "Sent");
  assert.deepEqual([sent?.entry.id, sent?.entry.flags], [id, ["seen"]]);
  await assert.rejects(
    mail.saveDraft("ann", { id, content: draft("late") }),
    refusal("draft_gone"),
  );
  await assert.rejects(
    mail.attachments.findUpload("ann", upload.id),
    refusal("attachment_missing"),
  );
  const [got] = await folderEntries(mail, "bob");
  assert.equal((await mail.read("bob", got!.entry.id)).content.attachments[0]?.size, 8);
});

Deno.test("saving and sending at once loses no text and sends once", async () => {
  const { mail } = makeWorld(["ann", "bob"]);
  await mail.saveDraft("ann", { id, content: draft("text") });
  await Promise.allSettled([
    mail.saveDraft("ann", { id, content: draft("text, longer") }),
    mail.send("ann", { id, to: "bob@penncloud.test", text: "text" }),
    mail.saveDraft("ann", { id, content: draft("text, longest") }),
    mail.send("ann", { id, to: "bob@penncloud.test", text: "text" }),
  ]);
  await mail.worker.idle();
  assert.equal((await folderEntries(mail, "bob")).length, 1);
  assert.equal((await folderEntries(mail, "ann", "Sent")).length, 1);
  assert.equal((await folderEntries(mail, "ann", "Drafts")).length, 0);
});

Deno.test("a deleted draft goes to Trash first, and takes its uploads along for good", async () => {
  const { mail, kv } = makeWorld(["ann"]);
  const upload = await mail.attachments.upload("ann", {
    filename: "a",
    contentType: "text/plain",
    source: [new Uint8Array(10)],
  });
  const attachments = [{ filename: "a", contentType: "text/plain", size: 10, upload: upload.id }];
  await mail.saveDraft("ann", { id, content: draft("text", { attachments }) });
  await mail.delete("ann", id);
  assert.equal((await mail.read("ann", id)).content.text, "text");
  await mail.delete("ann", id);
  const rows = (await kv.scan({ limit: 1000 })).cells.map(({ row }) => row);
  assert.equal(rows.some((row) => row.endsWith("/body")), false);
});

Deno.test("an upload that nothing uses is swept after a week; one in a draft is not", async () => {
  const { mail, env } = makeWorld(["ann"]);
  const upload = (filename: string) =>
    mail.attachments.upload("ann", { filename, contentType: "a/b", source: [new Uint8Array(1)] });
  const lost = await upload("lost"), kept = await upload("kept");
  const attachments = [{ filename: "kept", contentType: "a/b", size: 1, upload: kept.id }];
  await mail.saveDraft("ann", { id, content: draft("text", { attachments }) });
  env.nowMs += 8 * 24 * 3_600_000;
  await upload("new");
  await assert.rejects(mail.attachments.findUpload("ann", lost.id), refusal("attachment_missing"));
  assert.equal((await mail.attachments.findUpload("ann", kept.id)).filename, "kept");
});
