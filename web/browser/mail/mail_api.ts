/** The mail API as the browser calls it: shapes and addresses, nothing that remembers. */
import { api, ApiFailure, failureOf } from "../../ui/api.ts";

export interface Person {
  readonly name: string;
  readonly address: string;
}

export interface Folder {
  readonly id: string;
  readonly name: string;
  readonly role: "inbox" | "sent" | "drafts" | "trash" | "junk" | "archive" | null;
  readonly total: number;
  readonly unread: number;
}

export interface Message {
  readonly id: string;
  readonly uid: number;
  /** The folder's name. */
  readonly folder: string;
  readonly from: Person | null;
  readonly to: readonly Person[];
  readonly cc: readonly Person[];
  readonly bcc?: readonly Person[];
  readonly subject: string;
  readonly date: string;
  readonly size: number;
  readonly flags: readonly string[];
  readonly snippet: string;
  readonly hasAttachments: boolean;
}

export interface Attachment {
  readonly n: number;
  readonly filename: string;
  readonly contentType: string;
  readonly size: number;
  readonly inline: boolean;
}

export interface RecipientReport {
  readonly address: string;
  readonly status: "queued" | "delayed" | "delivered" | "failed";
  readonly detail?: string;
}

export interface FullMessage extends Message {
  readonly replyTo: readonly Person[];
  readonly messageId: string;
  readonly references: readonly string[];
  readonly text: string;
  readonly html: string;
  readonly remoteImages: number;
  readonly attachments: readonly Attachment[];
  readonly recipients?: readonly RecipientReport[];
}

export interface MessagePage {
  readonly messages: readonly Message[];
  readonly next: string | null;
}

export interface DraftAttachment {
  readonly filename: string;
  readonly contentType: string;
  readonly size: number;
  readonly upload?: string;
  readonly message?: string;
  readonly n?: number;
}

/** What is written, as far as the server keeps it. */
export interface DraftText {
  readonly to: readonly string[];
  readonly cc: readonly string[];
  readonly bcc: readonly string[];
  readonly subject: string;
  readonly text: string;
  readonly replyTo?: string;
  readonly forwards?: string;
  readonly references: readonly string[];
  readonly attachments: readonly DraftAttachment[];
}

export interface SavedDraft extends DraftText {
  readonly id: string;
  readonly revision: number;
  readonly saved: string;
}

export type Place = { readonly kind: "folder"; readonly folder: string } | {
  readonly kind: "search";
  readonly query: string;
};

const PAGE = 50;

export const getFolders = (options: { retryMs?: number } = {}): Promise<Folder[]> =>
  api("/mail/folders", options);

export function getPage(
  place: Place,
  options: { cursor?: string | null; limit?: number; signal?: AbortSignal; retryMs?: number } = {},
): Promise<MessagePage> {
  const query = new URLSearchParams({ limit: String(options.limit ?? PAGE) });
  if (options.cursor) query.set("cursor", options.cursor);
  query.set(place.kind === "folder" ? "folder" : "q", placeText(place));
  const path = place.kind === "folder" ? "/mail/messages" : "/mail/search";
  return api(`${path}?${query}`, {
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.retryMs === undefined ? {} : { retryMs: options.retryMs }),
  });
}

const placeText = (place: Place) => place.kind === "folder" ? place.folder : place.query;

export const getMessage = (id: string, signal?: AbortSignal): Promise<FullMessage> =>
  api(`/mail/messages/${id}`, signal === undefined ? {} : { signal });

export const frameAddress = (id: string, images: boolean): string =>
  `/api/v1/mail/messages/${id}/frame${images ? "?images=1" : ""}`;
export const attachmentAddress = (id: string, n: number, download = false): string =>
  `/api/v1/mail/messages/${id}/attachments/${n}${download ? "?download=1" : ""}`;
export const rawAddress = (id: string): string => `/api/v1/mail/messages/${id}/raw?download=1`;

/** Sets flags or moves; repeating it is harmless. */
export async function updateMessages(
  ids: readonly string[],
  change: { flags?: Record<string, boolean>; folder?: string },
): Promise<void> {
  await bulk({ ids, ...change });
}

export async function deleteMessages(ids: readonly string[]): Promise<void> {
  await bulk({ ids, action: "delete" });
}

const BULK_MAX = 200;

interface BulkBody {
  readonly ids: readonly string[];
  readonly action?: "delete";
  readonly flags?: Record<string, boolean>;
  readonly folder?: string;
}

async function bulk(body: BulkBody): Promise<void> {
  for (let at = 0; at < body.ids.length; at += BULK_MAX) {
    const ids = body.ids.slice(at, at + BULK_MAX);
    await api("/mail/bulk", { method: "POST", json: { ...body, ids } });
  }
}

export const createFolder = (name: string): Promise<Folder> =>
  api("/mail/folders", { method: "POST", json: { name } });

export const getDraft = (id: string): Promise<SavedDraft> => api(`/mail/drafts/${id}`);

export const putDraft = (id: string, draft: DraftText & { revision: number }) =>
  api<SavedDraft>(`/mail/drafts/${id}`, { method: "PUT", json: draft });

export const deleteDraft = (id: string): Promise<void> =>
  api(`/mail/drafts/${id}`, { method: "DELETE" });

export interface Outgoing extends Omit<DraftText, "replyTo"> {
  readonly id: string;
  readonly inReplyTo?: string;
}

/** Sending under one id twice sends once, so whoever got no answer may simply ask again. */
export const postMessage = (message: Outgoing, keepalive = false) =>
  keepalive
    ? fetch("/api/v1/mail/messages", {
      method: "POST",
      keepalive: true,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(message),
    }).then(() => undefined)
    : api<{ id: string; recipients: RecipientReport[] }>("/mail/messages", {
      method: "POST",
      json: message,
    });

/** Uploads with progress, which `fetch` does not tell. */
export function uploadFile(
  file: File,
  options: { onProgress: (part: number) => void; signal: AbortSignal },
): Promise<DraftAttachment> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/v1/mail/uploads?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) options.onProgress(event.loaded / event.total);
    };
    request.onload = () => {
      if (request.status === 201) resolve(JSON.parse(request.responseText) as DraftAttachment);
      else reject(failureOf(request.status, request.responseText));
    };
    request.onerror = () => reject(new ApiFailure(0, "offline", "The upload was interrupted."));
    options.signal.addEventListener("abort", () => {
      request.abort();
      reject(options.signal.reason);
    }, { once: true });
    request.send(file);
  });
}
