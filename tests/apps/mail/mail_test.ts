/** Sending, reading, filing and deleting over one store in memory. */
import assert from "node:assert/strict";
import { MailError } from "../../../apps/mail/mail_error.ts";
import { folderEntries, makeWorld, textOf } from "./mail_world.ts";

const refusal = (code: string) => (error: unknown) =>
  error instanceof MailError && error.code === code;

Deno.test("a new user has INBOX, Drafts, Sent, Junk and Trash, and signing up twice changes nothing", async () => {
  const { mail } = makeWorld(["ann"]);
  await mail.createMailbox("ann");
  const first = await mail.folders("ann");
  await mail.createMailbox("ann");
  assert.deepEqual(await mail.folders("ann"), first);
  assert.deepEqual(first.map(({ name }) => name), ["INBOX", "Drafts", "Sent", "Junk", "Trash"]);
});

Deno.test("send() gives each recipient one copy and files one in Sent", async () => {
  const { mail } = makeWorld(["ann", "bob", "cleo"]);
  const { id, recipients } = await mail.send("ann", {
    to: "Bob <bob@penncloud.test>, bob@penncloud.test",
    cc: ["cleo@PennCloud.test"],
    subject: "Grüße 你好",
    text: "Hello Bob,\n> quoted\nsee you at nine.",
  });
  assert.deepEqual(recipients.map(({ status }) => status), ["queued", "queued"]);
  await mail.worker.idle();
  for (const user of ["bob", "cleo"]) {
    const entries = await folderEntries(mail, user);
    assert.equal(entries.length, 1);
    const { entry } = entries[0]!;
    assert.equal(entry.subject, "Grüße 你好");
    assert.equal(entry.snippet, "Hello Bob, see you at nine.");
    const { content } = await mail.read(user, entry.id);
    assert.equal(content.text.trim(), "Hello Bob,\n> quoted\nsee you at nine.");
    assert.deepEqual(content.from, { name: "", address: "ann@penncloud.test" });
    assert.match(content.messageId, /^<.+@penncloud\.test>$/);
  }
  const sent = await mail.read("ann", id);
  assert.deepEqual(sent.recipients?.map(({ status }) => status), ["delivered", "delivered"]);
  assert.equal(sent.entry.flags.includes("seen"), true);
});

Deno.test("send() to oneself leaves one message in INBOX and one in Sent", async () => {
  const { mail } = makeWorld(["ann"]);
  await mail.send("ann", { to: "ann@penncloud.test, ann+notes@penncloud.test", text: "note" });
  await mail.worker.idle();
  assert.equal((await folderEntries(mail, "ann")).length, 1);
  assert.equal((await folderEntries(mail, "ann", "Sent")).length, 1);
});

Deno.test("send() twice under one id sends once", async () => {
  const { mail } = makeWorld(["ann", "bob"]);
  const request = { id: "qclientmadethisid", to: "bob@penncloud.test", text: "once" };
  const [first, second] = await Promise.all([mail.send("ann", request), mail.send("ann", request)]);
  assert.equal(first.id, second.id);
  await mail.send("ann", request);
  await mail.worker.idle();
  assert.equal((await folderEntries(mail, "bob")).length, 1);
  assert.equal((await folderEntries(mail, "ann", "Sent")).length, 1);
});

Deno.test("send() names the address that is wrong, and nothing is sent to the others", async () => {
  const { mail } = makeWorld(["ann", "bob"]);
  const cases: [string, string][] = [
    ["bob@penncloud.test, not an address", "invalid_address"],
    ["bob@penncloud.test, nobody@penncloud.test", "unknown_recipient"],
    ["bob@penncloud.test\r\nBcc: eve@evil.example", "invalid_address"],
    ["bob@", "invalid_address"],
    ["bob@127.0.0.1", "invalid_address"],
    ["", "no_recipients"],
  ];
  for (const [to, code] of cases) {
    await assert.rejects(mail.send("ann", { to, text: "x" }), refusal(code), to);
  }
  await mail.worker.idle();
  assert.equal((await folderEntries(mail, "bob")).length, 0);
});

Deno.test("a subject or a file name cannot start a header of its own, and Bcc stays hidden", async () => {
  const { mail } = makeWorld(["ann", "bob", "cleo"]);
  const { id } = await mail.send("ann", {
    to: "bob@penncloud.test",
    bcc: "cleo@penncloud.test",
    subject: "hi\r\nX-Evil: 1\r\n\r\nbody",
    text: "hi",
    attachments: [{
      filename: 'a"\r\nX-Evil: 2.txt',
      contentType: "text/plain\r\nX-Evil: 3",
      content: new TextEncoder().encode("file"),
    }],
  });
  await mail.worker.idle();
  const [got] = await folderEntries(mail, "cleo");
  assert.ok(got !== undefined);
  const raw = await textOf((await mail.raw("cleo", got.entry.id)).stream);
  assert.doesNotMatch(raw, /^X-Evil/mi);
  assert.doesNotMatch(raw, /cleo@|^bcc/mi);
  assert.deepEqual((await mail.read("ann", id)).entry.bcc?.map((who) => who.address), [
    "cleo@penncloud.test",
  ]);
});

Deno.test("an attachment arrives byte for byte, uploaded, inline and forwarded", async () => {
  const { mail } = makeWorld(["ann", "bob"]);
  const bytes = Uint8Array.from({ length: 1_500_007 }, (_, i) => (i * 7919) >> 3);
  const upload = await mail.attachments.upload("ann", {
    filename: "Übersicht.bin",
    contentType: "application/x-thing",
    source: [bytes.subarray(0, 1000), bytes.subarray(1000)],
  });
  await mail.send("ann", {
    to: "bob@penncloud.test",
    text: "see attached",
    attachments: [{ upload: upload.id }, {
      filename: "small.txt",
      contentType: "text/plain",
      content: new TextEncoder().encode("small"),
    }],
  });
  await mail.worker.idle();
  const [got] = await folderEntries(mail, "bob");
  const { content } = await mail.read("bob", got!.entry.id);
  assert.deepEqual(content.attachments.map(({ filename, size }) => [filename, size]), [
    ["Übersicht.bin", bytes.length],
    ["small.txt", 5],
  ]);
  await mail.send("bob", {
    to: "ann@penncloud.test",
    text: "back",
    forwards: got!.entry.id,
    attachments: [{ message: got!.entry.id, n: 0 }],
  });
  await mail.worker.idle();
  const [back] = await folderEntries(mail, "ann");
  const { stream } = await mail.attachment("ann", back!.entry.id, 0);
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part);
  assert.deepEqual(new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer()), bytes);
  const [marked] = await folderEntries(mail, "bob");
  assert.equal(marked!.entry.flags.includes("forwarded"), true);
});

Deno.test("a message larger than the limit is refused and leaves no bytes behind", async () => {
  const { mail, kv } = makeWorld(["ann", "bob"], { mail: { message_max_bytes: 64 * 1024 } });
  const content = new Uint8Array(80 * 1024);
  const attachments = [{ filename: "a", contentType: "b/c", content }];
  const before = (await kv.scan({ limit: 1000 })).cells.length;
  await assert.rejects(
    mail.send("ann", { to: "bob@penncloud.test", attachments }),
    refusal("message_too_large"),
  );
  await assert.rejects(
    mail.smtp.receive({
      envelopeFrom: "x@y.example",
      recipients: ["bob@penncloud.test"],
      source: [new TextEncoder().encode("Subject: x\r\n\r\n"), content, content],
      trace: "Received: from test",
    }),
    refusal("message_too_large"),
  );
  assert.equal((await kv.scan({ limit: 1000 })).cells.length, before);
});

Deno.test("a reply carries In-Reply-To and References and marks what it answers", async () => {
  const { mail } = makeWorld(["ann", "bob"]);
  await mail.send("ann", { to: "bob@penncloud.test", subject: "plan", text: "one" });
  await mail.worker.idle();
  const [first] = await folderEntries(mail, "bob");
  await mail.send("bob", {
    to: "ann@penncloud.test",
    subject: "Re: plan",
    text: "two",
    inReplyTo: first!.entry.id,
  });
  await mail.worker.idle();
  const [reply] = await folderEntries(mail, "ann");
  const raw = await textOf((await mail.raw("ann", reply!.entry.id)).stream);
  assert.ok(raw.includes(`In-Reply-To: ${first!.entry.messageId}`));
  assert.ok(raw.includes(`References: ${first!.entry.messageId}`));
  assert.deepEqual(reply!.entry.references, [first!.entry.messageId]);
  const [answered] = await folderEntries(mail, "bob");
  assert.deepEqual(answered!.entry.flags, ["answered"]);
});

Deno.test("flags and counters agree, and a message keeps its id when it moves", async () => {
  const { mail, env } = makeWorld(["ann", "bob"]);
  for (const text of ["one", "two", "three"]) {
    env.nowMs += 1000;
    await mail.send("ann", { to: "bob@penncloud.test", subject: text, text });
    await mail.worker.idle();
  }
  const counts = async (role: string) => {
    const folder = (await mail.folders("bob")).find((candidate) => candidate.role === role)!;
    return [folder.total, folder.unread];
  };
  assert.deepEqual(await counts("inbox"), [3, 3]);
  const entries = await folderEntries(mail, "bob");
  assert.deepEqual(entries.map(({ uid }) => uid), [3, 2, 1]);
  const { id } = entries[1]!.entry;
  await mail.update("bob", id, { flags: { seen: true, flagged: true } });
  await mail.update("bob", id, { flags: { seen: true } });
  assert.deepEqual(await counts("inbox"), [3, 2]);
  const moved = await mail.update("bob", id, { folder: "archive", flags: ["\\Seen"] });
  assert.deepEqual([moved.folderId, moved.entry.flags], ["archive", ["seen"]]);
  assert.deepEqual(await counts("inbox"), [2, 2]);
  assert.deepEqual(await counts("archive"), [1, 0]);
  assert.equal((await mail.read("bob", id)).entry.subject, "two");
  await mail.update("bob", id, { folder: "INBOX" });
  // It is back in its place in time; a UID that was given out never comes back.
  assert.deepEqual((await folderEntries(mail, "bob")).map(({ uid }) => uid), [3, 4, 1]);
});

Deno.test("a UID that a crash kept from being noted is found all the same", async () => {
  const { mail, kv } = makeWorld(["ann", "bob"]);
  const mailbox = mail.mailbox("bob");
  for (const id of ["qfirstone", "qsecondone", "qthirdone"]) {
    const entry = {
      id,
      from: null,
      to: [],
      subject: id,
      dateMs: 1,
      receivedMs: 1,
      size: 1,
      flags: [],
      snippet: "",
      hasAttachments: false,
    };
    // As if the process had died between the two operations.
    await kv.apply({ row: mailbox.row, mutations: await mailbox.addition("inbox", entry) });
  }
  const entries = await folderEntries(mail, "bob");
  assert.deepEqual(entries.map(({ entry, uid }) => [entry.id, uid]), [
    ["qthirdone", 3],
    ["qsecondone", 2],
    ["qfirstone", 1],
  ]);
  assert.equal((await mail.update("bob", "qsecondone", { folder: "trash" })).uid, 1);
  assert.deepEqual((await folderEntries(mail, "bob")).map(({ uid }) => uid), [3, 1]);
});

Deno.test("delete() moves to Trash, from there deletes for good, and the last one out frees the bytes", async () => {
  const { mail, kv } = makeWorld(["ann", "bob"]);
  const bodies = async () =>
    (await kv.scan({ limit: 1000 })).cells.filter(({ row }) => row.endsWith("/body")).length;
  const { id } = await mail.send("ann", { to: "bob@penncloud.test", text: "secret" });
  await mail.worker.idle();
  const [got] = await folderEntries(mail, "bob");
  assert.equal(await mail.delete("bob", got!.entry.id), "trashed");
  assert.equal((await folderEntries(mail, "bob", "Trash")).length, 1);
  assert.equal(await mail.delete("bob", got!.entry.id), "deleted");
  await assert.rejects(mail.read("bob", got!.entry.id), refusal("not_found"));
  // The sender's copy still has its bytes.
  assert.equal((await mail.read("ann", id)).content.text.trim(), "secret");
  assert.ok(await bodies() > 0);
  await mail.delete("ann", id, { forGood: true });
  assert.equal(await bodies(), 0);
});

Deno.test("search finds words in sender, subject and text, over folders, newest first, page by page", async () => {
  const { mail, env } = makeWorld(["ann", "bob", "zoe"]);
  const send = async (from: string, subject: string, text: string) => {
    env.nowMs += 1000;
    await mail.send(from, { to: "bob@penncloud.test", subject, text });
    await mail.worker.idle();
  };
  await send("ann", "Lunch", "shall we eat?");
  await send("zoe", "Report", "Numbers for the café board");
  await send("ann", "Report two", "more numbers");
  await send("bob", "Numbers to self", "numbers");
  const find = async (query: string, limit = 50, cursor?: string) => {
    const page = await mail.search("bob", query, { limit, ...(cursor ? { cursor } : {}) });
    return { subjects: page.entries.map(({ entry }) => entry.subject), next: page.next };
  };
  assert.deepEqual((await find("NUMBERS -from:bob")).subjects, ["Report two", "Report"]);
  assert.deepEqual((await find("from:ann subject:report")).subjects, ["Report two"]);
  assert.deepEqual((await find("cafe")).subjects, ["Report"]);
  assert.deepEqual((await find('"we eat"')).subjects, ["Lunch"]);
  assert.deepEqual((await find("numbers in:sent")).subjects, ["Numbers to self"]);
  assert.deepEqual((await find("is:unread has:attachment")).subjects, []);
  const first = await find("report", 1);
  assert.deepEqual(first.subjects, ["Report two"]);
  assert.deepEqual((await find("report", 1, first.next!)).subjects, ["Report"]);
});
