/**
 * The mail API: `/api/v1/mail/…`. It reads the request, calls apps/mail, and gives the answer the
 * shape that interfaces promise; everything that mail is lies in apps/mail.
 *
 * Beyond the published calls there are drafts (`PUT /drafts/:id`, made by the client's own id so
 * that a repeated save is harmless), uploads for attachments, `POST /bulk` for many messages at
 * once, and `/messages/:id/frame`, the HTML of a mail as a document of its own with its own policy.
 */
import { type Context, Hono } from "hono";
import { stream } from "hono/streaming";
import { z } from "zod";
import type { AttachmentRef } from "../../apps/mail/attachments.ts";
import type { DraftAttachment, DraftContent, SavedDraft } from "../../apps/mail/drafts.ts";
import type { Folder } from "../../apps/mail/folders.ts";
import type { FullMessage, Mail } from "../../apps/mail/mail.ts";
import { MailError } from "../../apps/mail/mail_error.ts";
import type { PlacedEntry } from "../../apps/mail/message_entry.ts";
import { freshId } from "../../kv/env.ts";
import type { AppContext } from "../context.ts";
import { ApiError, toApiError } from "../errors.ts";
import { mailFrame } from "../pages/mail_frame.ts";
import { readJson } from "../read_json.ts";
import { requestPieces } from "../request_pieces.ts";
import { requireUser, type WebEnv } from "../session.ts";

const Text = (lengthMax: number) => z.string().max(lengthMax);
const Recipients = z.union([
  Text(100_000),
  z.array(z.union([
    Text(1000),
    z.object({ name: Text(1000).optional(), address: Text(1000) }),
  ])).max(1100),
]);
const Id = Text(60);
const Attachment = z.union([
  z.object({ upload: Id }),
  z.object({ message: Id, n: z.int().min(0).max(10_000) }),
  z.object({
    filename: Text(1000),
    contentType: Text(200).default("application/octet-stream"),
    /** Base64. */
    content: z.string(),
  }),
]);
const SendBody = z.object({
  id: Id.optional(),
  to: Recipients.default([]),
  cc: Recipients.optional(),
  bcc: Recipients.optional(),
  subject: Text(10_000).default(""),
  text: Text(2_000_000).default(""),
  html: Text(2_000_000).default(""),
  inReplyTo: Text(300).optional(),
  references: z.array(Text(300)).max(100).optional(),
  forwards: Id.optional(),
  attachments: z.array(Attachment).max(100).default([]),
});
const DraftField = z.union([Text(100_000), z.array(Text(2000)).max(1100)]).default([])
  .transform((field) => typeof field === "string" ? (field === "" ? [] : [field]) : field);
const DraftBody = z.object({
  to: DraftField,
  cc: DraftField,
  bcc: DraftField,
  subject: Text(10_000).default(""),
  text: Text(2_000_000).default(""),
  html: Text(2_000_000).default(""),
  replyTo: Id.optional(),
  forwards: Id.optional(),
  references: z.array(Text(300)).max(100).default([]),
  attachments: z.array(z.object({
    filename: Text(1000).default("attachment"),
    contentType: Text(200).default("application/octet-stream"),
    size: z.int().nonnegative().default(0),
    upload: Id.optional(),
    message: Id.optional(),
    n: z.int().nonnegative().optional(),
  })).max(100).default([]),
  revision: z.int().nonnegative().optional(),
});
const Flags = z.union([z.array(Text(60)).max(50), z.record(Text(60), z.boolean())]);
const ChangeBody = z.object({ flags: Flags.optional(), folder: Text(200).optional() });
const BulkBody = z.object({
  ids: z.array(Id).min(1).max(500),
  action: z.enum(["update", "delete"]).default("update"),
  flags: Flags.optional(),
  folder: Text(200).optional(),
});

const PAGE_MAX = 200;
const BULK_AT_ONCE = 8;
/** Drafts and bulk requests; sending has the limit of messages. */
const BODY_BYTES_MAX = 5 * 1024 * 1024;

export function mailRoutes(context: AppContext & { readonly mail: Mail }): Hono<WebEnv> {
  const { mail, env } = context;
  const routes = new Hono<WebEnv>();
  routes.use(requireUser(context));

  routes.get("/folders", async (c) => c.json((await mail.folders(name(c))).map(publicFolder)));

  routes.post("/folders", async (c) => {
    const { name: folder } = await readJson(c, z.object({ name: Text(200) }));
    return c.json(publicFolder(await mail.createFolder(name(c), folder)), 201);
  });

  routes.get("/messages", async (c) => {
    const before = c.req.query("cursor");
    const page = await mail.list(name(c), {
      folder: c.req.query("folder") || "INBOX",
      limit: pageLimit(c),
      ...(before ? { before } : {}),
    });
    return c.json({
      messages: page.entries.map((placed) => publicMessage(placed, [page.folder])),
      next: page.next,
    });
  });

  routes.get("/search", async (c) => {
    const cursor = c.req.query("cursor"), user = name(c);
    const page = await mail.search(user, c.req.query("q") ?? "", {
      limit: pageLimit(c),
      ...(cursor ? { cursor } : {}),
    });
    const folders = await mail.folders(user);
    const messages = page.entries.map((placed) => publicMessage(placed, folders));
    return c.json({ messages, next: page.next });
  });

  routes.get("/messages/:id", async (c) => {
    const user = name(c);
    const [message, folders] = await Promise.all([
      mail.read(user, c.req.param("id"), { remoteImages: c.req.query("images") === "1" }),
      mail.folders(user),
    ]);
    return c.json(publicFullMessage(message, folders));
  });

  routes.get("/messages/:id/frame", async (c) => {
    const remoteImages = c.req.query("images") === "1";
    const { content } = await mail.read(name(c), c.req.param("id"), { remoteImages });
    return mailFrame(content.html, { remoteImages });
  });

  routes.get("/messages/:id/raw", async (c) => {
    const { size, stream: source } = await mail.raw(name(c), c.req.param("id"));
    c.header("Content-Type", "message/rfc822");
    if (size !== null) c.header("Content-Length", String(size));
    if (c.req.query("download") === "1") {
      c.header("Content-Disposition", 'attachment; filename="message.eml"');
    }
    return pipe(c, source);
  });

  routes.get("/messages/:id/attachments/:n", async (c) => {
    const n = Number(c.req.param("n"));
    if (!Number.isSafeInteger(n) || n < 0) throw new ApiError(404, "not_found", "No such number.");
    const part = await mail.attachment(name(c), c.req.param("id"), n);
    const inline = c.req.query("download") !== "1" && SHOWN_IN_PLACE.test(part.contentType);
    const file = encodeURIComponent(part.filename).replaceAll("'", "%27");
    c.header("Content-Type", part.contentType);
    c.header("Content-Length", String(part.size));
    c.header(
      "Content-Disposition",
      `${inline ? "inline" : "attachment"}; filename*=UTF-8''${file}`,
    );
    // Whatever it claims to be, it must not run here.
    c.header("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'");
    return pipe(c, part.stream);
  });

  routes.post("/messages", async (c) => {
    const bytesMax = Math.ceil(context.config.mail.message_max_bytes * 1.4) + 1024 * 1024;
    const body = await readJson(c, SendBody, { bytesMax });
    const attachments = body.attachments.map(attachmentRef);
    const { id, cc, bcc, inReplyTo, references, forwards, ...rest } = body;
    try {
      const sent = await mail.send(name(c), {
        ...rest,
        attachments,
        ...(id === undefined ? {} : { id }),
        ...(cc === undefined ? {} : { cc }),
        ...(bcc === undefined ? {} : { bcc }),
        ...(inReplyTo === undefined ? {} : { inReplyTo }),
        ...(references === undefined ? {} : { references }),
        ...(forwards === undefined ? {} : { forwards }),
      });
      return c.json(sent, 202);
    } catch (error) {
      if (!(error instanceof MailError) || error.address === undefined) throw error;
      // The compose window marks the address that has to be mended.
      const answer = toApiError(error)!;
      return c.json({ error: { ...answer.toJson().error, address: error.address } }, answer.status);
    }
  });

  routes.patch("/messages/:id", async (c) => {
    const { flags, folder } = await readJson(c, ChangeBody), user = name(c);
    const change = {
      ...(flags === undefined ? {} : { flags }),
      ...(folder === undefined ? {} : { folder }),
    };
    const placed = await mail.update(user, c.req.param("id"), change);
    return c.json(publicMessage(placed, await mail.folders(user)));
  });

  routes.delete("/messages/:id", async (c) => {
    const result = await mail.delete(name(c), c.req.param("id"));
    return c.json({ result });
  });

  routes.post("/bulk", async (c) => {
    const { ids, action, flags, folder } = await readJson(c, BulkBody), user = name(c);
    const change = {
      ...(flags === undefined ? {} : { flags }),
      ...(folder === undefined ? {} : { folder }),
    };
    const failed: { id: string; code: string }[] = [];
    const waiting = [...new Set(ids)];
    const lane = async () => {
      for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
        try {
          if (action === "delete") await mail.delete(user, id);
          else await mail.update(user, id, change);
        } catch (error) {
          // One that is gone must not keep the others back; a store that is away does.
          if (!(error instanceof MailError)) throw error;
          failed.push({ id, code: error.code });
        }
      }
    };
    await Promise.all(Array.from({ length: BULK_AT_ONCE }, lane));
    return c.json({ done: new Set(ids).size - failed.length, failed });
  });

  routes.post("/uploads", async (c) => {
    const body = c.req.raw.body;
    const upload = await mail.attachments.upload(name(c), {
      filename: c.req.query("name") ?? "attachment",
      contentType: c.req.header("content-type") ?? "application/octet-stream",
      source: body === null ? [] : requestPieces(body),
    });
    const { id, filename, contentType, size } = upload;
    return c.json({ upload: id, filename, contentType, size }, 201);
  });

  routes.delete("/uploads/:id", async (c) => {
    await mail.attachments.discard(name(c), c.req.param("id"));
    return c.body(null, 204);
  });

  const saveDraft = async (c: Context<WebEnv>, id: string, status: 200 | 201) => {
    const { revision, ...body } = await readJson(c, DraftBody, { bytesMax: BODY_BYTES_MAX });
    const { saved, placed } = await mail.saveDraft(name(c), {
      id,
      content: draftContent(body),
      ...(revision === undefined ? {} : { revision }),
    });
    return c.json(publicDraft(id, placed.uid, saved), status);
  };
  routes.post("/drafts", (c) => saveDraft(c, freshId(env), 201));
  routes.put("/drafts/:id", (c) => {
    const id = c.req.param("id");
    if (!/^[a-z][a-z0-9]{15,39}$/.test(id)) {
      throw new ApiError(422, "invalid_request", "A draft's id is 16 to 40 of a-z and 0-9.");
    }
    return saveDraft(c, id, 200);
  });
  routes.get("/drafts/:id", async (c) => {
    const id = c.req.param("id"), draft = await mail.drafts.find(name(c), id);
    if (draft === null) throw new MailError("not_found", "There is no such draft");
    return c.json(publicDraft(id, null, draft));
  });
  routes.delete("/drafts/:id", async (c) => {
    await mail.delete(name(c), c.req.param("id"), { forGood: true });
    return c.body(null, 204);
  });
  return routes;
}

/** Types that a browser shows without running anything. */
const SHOWN_IN_PLACE = /^(image\/(png|jpeg|gif|webp|avif)|audio\/|video\/|text\/plain$)/;

const name = (c: Context<WebEnv>): string => c.var.user.username;

function pageLimit(c: Context<WebEnv>): number {
  const limit = Number(c.req.query("limit") || 50);
  return Number.isSafeInteger(limit) ? Math.min(Math.max(limit, 1), PAGE_MAX) : 50;
}

function pipe(
  c: Context<WebEnv>,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Response {
  return stream(c, async (out) => {
    for await (const chunk of source) {
      if (out.aborted) return;
      await out.write(chunk);
    }
  });
}

function attachmentRef(attachment: z.infer<typeof Attachment>): AttachmentRef {
  if (!("content" in attachment)) return attachment;
  try {
    return { ...attachment, content: Uint8Array.fromBase64(attachment.content) };
  } catch {
    throw new MailError("invalid_message", `"${attachment.filename}" is not valid base64`);
  }
}

function draftContent(body: Omit<z.infer<typeof DraftBody>, "revision">): DraftContent {
  const { replyTo, forwards, attachments, ...rest } = body;
  return {
    ...rest,
    ...(replyTo === undefined ? {} : { replyTo }),
    ...(forwards === undefined ? {} : { forwards }),
    attachments: attachments.map(({ upload, message, n, ...file }): DraftAttachment => ({
      ...file,
      ...(upload === undefined ? { message: message ?? "", n: n ?? 0 } : { upload }),
    })),
  };
}

function publicFolder({ id, name, role, total, unread }: Folder) {
  return { id, name, role, total, unread };
}

function publicMessage({ entry, folderId, uid }: PlacedEntry, folders: readonly Folder[]) {
  return {
    id: entry.id,
    uid,
    folder: folders.find(({ id }) => id === folderId)?.name ?? folderId,
    from: entry.from,
    to: entry.to,
    cc: entry.cc ?? [],
    ...(entry.bcc === undefined ? {} : { bcc: entry.bcc }),
    subject: entry.subject,
    date: new Date(entry.dateMs).toISOString(),
    size: entry.size,
    flags: entry.flags,
    snippet: entry.snippet,
    hasAttachments: entry.hasAttachments,
  };
}

function publicFullMessage(message: FullMessage, folders: readonly Folder[]) {
  const { content, entry, recipients } = message;
  return {
    ...publicMessage(message, folders),
    from: content.from ?? entry.from,
    to: content.to,
    cc: content.cc,
    replyTo: content.replyTo,
    messageId: content.messageId,
    references: content.references,
    text: content.text,
    html: content.html,
    remoteImages: content.remoteImageCount,
    attachments: content.attachments,
    ...(recipients === undefined ? {} : { recipients }),
  };
}

function publicDraft(id: string, uid: number | null, draft: SavedDraft) {
  const { savedMs, ...rest } = draft;
  return { id, ...(uid === null ? {} : { uid }), ...rest, saved: new Date(savedMs).toISOString() };
}
