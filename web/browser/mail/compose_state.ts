/**
 * Messages being written, one object per window. No text is lost, whatever goes away:
 *
 *     as you type   a copy in this browser, at once
 *     1 s later     a draft on the server, where any other frontend and device finds it
 *     on Send       a copy of what is to be sent, until the server has taken it; a page that opens
 *                   later sends it on. One id from draft to Sent, so it is never sent twice
 *
 * The text leaves the browser's copy only when the server has it.
 */
import { computed, signal } from "@preact/signals";
import { ApiFailure, unsaved } from "../../ui/api.ts";
import { showToast } from "../../ui/components/toast.tsx";
import {
  deleteDraft,
  type DraftAttachment,
  type DraftText,
  getDraft,
  type Outgoing,
  postMessage,
  putDraft,
  uploadFile,
} from "./mail_api.ts";
import { loadList, refresh } from "./mail_state.ts";

export type SaveState = "empty" | "dirty" | "saving" | "saved" | "failed";

export interface ComposeAttachment {
  readonly key: number;
  readonly filename: string;
  readonly contentType: string;
  readonly size: number;
  /** 0 to 1; null when it is on the server. */
  readonly progress: number | null;
  readonly error?: string;
  readonly ref?: DraftAttachment;
  readonly file?: File;
}

const AUTOSAVE_MS = 1_000;
const UNDO_SEND_MS = 4_000;
const SEND_RETRY_MS = 2_000;
const SEND_TRIES_MAX = 15;
const WINDOWS_MAX = 3;

export const EMPTY_DRAFT: DraftText = {
  to: [],
  cc: [],
  bcc: [],
  subject: "",
  text: "",
  references: [],
  attachments: [],
};

let user = "";
export const windows = signal<readonly Compose[]>([]);
export const pendingUploads = computed(() => windows.value.some((one) => one.uploading.value));

const draftKey = (id: string) => `penncloud:${user}:draft:${id}`;
const sendKey = (id: string) => `penncloud:${user}:send:${id}`;

/** The same form as the server's ids: a letter, then 25 of base32. */
function freshDraftId(): string {
  const symbols = "abcdefghijklmnopqrstuvwxyz234567";
  const bytes = crypto.getRandomValues(new Uint8Array(26));
  return Array.from(bytes, (byte, i) => i === 0 ? symbols[byte % 26] : symbols[byte & 31]).join("");
}

let lastKey = 0;

export class Compose {
  readonly to = signal<readonly string[]>([]);
  readonly cc = signal<readonly string[]>([]);
  readonly bcc = signal<readonly string[]>([]);
  readonly subject = signal("");
  readonly text = signal("");
  readonly attachments = signal<readonly ComposeAttachment[]>([]);
  readonly showCc = signal(false);
  readonly showBcc = signal(false);
  readonly minimized = signal(false);
  readonly large = signal(false);
  readonly saveState = signal<SaveState>("empty");
  readonly error = signal<string | null>(null);
  readonly badAddress = signal<string | null>(null);
  readonly uploading = computed(() =>
    this.attachments.value.some(({ progress, error }) => progress !== null && error === undefined)
  );
  readonly title = computed(() => this.subject.value.trim() || "New message");
  /** Where the cursor goes first. */
  readonly focusText: boolean;
  readonly #base: DraftText;
  readonly #uploads = new Map<number, AbortController>();
  #revision: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #saving: Promise<void> | null = null;
  #closed = false;

  constructor(public id: string, draft: DraftText, options: { revision: number; dirty: boolean }) {
    this.#base = draft;
    this.#revision = options.revision;
    this.to.value = draft.to;
    this.cc.value = draft.cc;
    this.bcc.value = draft.bcc;
    this.subject.value = draft.subject;
    this.text.value = draft.text;
    this.showCc.value = draft.cc.length > 0;
    this.showBcc.value = draft.bcc.length > 0;
    this.focusText = draft.to.length > 0;
    this.attachments.value = draft.attachments.map((ref) => ({
      key: ++lastKey,
      filename: ref.filename,
      contentType: ref.contentType,
      size: ref.size,
      progress: null,
      ref,
    }));
    if (options.dirty) this.changed();
    else if (options.revision > 0) this.saveState.value = "saved";
  }

  draft(): DraftText {
    const { replyTo, forwards, references } = this.#base;
    return {
      to: this.to.value,
      cc: this.cc.value,
      bcc: this.bcc.value,
      subject: this.subject.value,
      text: this.text.value,
      references,
      ...(replyTo === undefined ? {} : { replyTo }),
      ...(forwards === undefined ? {} : { forwards }),
      attachments: this.attachments.value.flatMap(({ ref }) => ref ?? []),
    };
  }

  isEmpty(): boolean {
    const { to, cc, bcc, subject, text, attachments } = this.draft();
    return to.length + cc.length + bcc.length + attachments.length === 0 &&
      subject.trim() === "" && text.trim() === "" && !this.uploading.value;
  }

  /** Call after every change by hand. */
  changed(): void {
    this.error.value = null;
    this.saveState.value = "dirty";
    noteUnsaved();
    keepCopy(draftKey(this.id), { draft: this.draft(), revision: this.#revision });
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.save(), AUTOSAVE_MS);
  }

  /** Saves now, unless there is nothing new. Only one save is on its way at a time. */
  async save(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#saving;
    if (this.saveState.value !== "dirty" && this.saveState.value !== "failed") return;
    if (this.#closed) return;
    this.#saving = this.#saveOnce().finally(() => this.#saving = null);
    await this.#saving;
    if (this.saveState.value === "dirty" && !this.#closed) await this.save();
  }

  async #saveOnce(): Promise<void> {
    const draft = this.draft(), sent = JSON.stringify(draft);
    this.saveState.value = "saving";
    try {
      const saved = await putDraft(this.id, { ...draft, revision: this.#revision });
      this.#revision = saved.revision;
      const same = JSON.stringify(this.draft()) === sent;
      this.saveState.value = same ? "saved" : "dirty";
      if (same) dropCopy(draftKey(this.id));
    } catch (error) {
      if (error instanceof ApiFailure && error.code === "draft_conflict") return this.#fork();
      if (error instanceof ApiFailure && error.code === "draft_gone") return this.#fork();
      this.saveState.value = "failed";
      this.#timer = setTimeout(() => void this.save(), 5 * AUTOSAVE_MS);
    }
    noteUnsaved();
  }

  /** Another window has the draft, or it was sent from there: this text goes on as its own. */
  #fork(): void {
    dropCopy(draftKey(this.id));
    this.id = freshDraftId();
    this.#revision = 0;
    showToast({ message: "This draft was changed elsewhere. Yours is kept as a new one." });
    this.changed();
  }

  addFiles(files: Iterable<File>): void {
    for (const file of files) {
      const key = ++lastKey;
      this.attachments.value = [...this.attachments.value, {
        key,
        filename: file.name || "pasted",
        contentType: file.type,
        size: file.size,
        progress: 0,
        file,
      }];
      void this.#upload(key, file);
    }
  }

  retryUpload(key: number): void {
    const file = this.attachments.value.find((one) => one.key === key)?.file;
    if (file !== undefined) void this.#upload(key, file);
  }

  async #upload(key: number, file: File): Promise<void> {
    const abort = new AbortController();
    this.#uploads.set(key, abort);
    const patch = (change: Partial<ComposeAttachment>) => {
      this.attachments.value = this.attachments.value.map((one) => {
        if (one.key !== key) return one;
        const { error: _, ...rest } = one;
        return { ...rest, ...change };
      });
    };
    patch({ progress: 0 });
    try {
      const ref = await uploadFile(file, {
        signal: abort.signal,
        onProgress: (progress) => patch({ progress }),
      });
      patch({ progress: null, ref });
      this.changed();
    } catch (error) {
      if (abort.signal.aborted) return;
      patch({ error: error instanceof ApiFailure ? error.message : "The upload failed." });
    } finally {
      this.#uploads.delete(key);
    }
  }

  removeAttachment(key: number): void {
    this.#uploads.get(key)?.abort(new DOMException("removed", "AbortError"));
    this.attachments.value = this.attachments.value.filter((one) => one.key !== key);
    this.changed();
  }

  /** Closes the window; what is written stays in Drafts, unless nothing is. */
  async close(): Promise<void> {
    const empty = this.isEmpty();
    this.#leave();
    if (empty) {
      await this.#forget();
      return;
    }
    if (this.saveState.value === "dirty" || this.saveState.value === "failed") {
      this.#closed = false;
      await this.save();
      this.#closed = true;
      void refresh();
    }
    showToast({ message: "Saved in Drafts" });
  }

  async discard(): Promise<void> {
    const draft = this.draft();
    this.#leave();
    await this.#saving;
    await this.#forget();
    showToast({
      message: "Draft discarded",
      action: { label: "Undo", run: () => startCompose(draft, { dirty: true }) },
    });
  }

  async #forget(): Promise<void> {
    dropCopy(draftKey(this.id));
    noteUnsaved();
    if (this.#revision === 0) return;
    await deleteDraft(this.id).catch(() => {});
    void refresh();
  }

  #leave(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const abort of this.#uploads.values()) {
      abort.abort(new DOMException("closed", "AbortError"));
    }
    windows.value = windows.value.filter((one) => one !== this);
  }

  /** Sends after a few seconds in which it can be taken back. */
  async send(): Promise<void> {
    this.error.value = this.badAddress.value = null;
    const draft = this.draft();
    if (draft.to.length + draft.cc.length + draft.bcc.length === 0) {
      this.error.value = "Add at least one recipient.";
      return;
    }
    if (this.attachments.value.some(({ error }) => error !== undefined)) {
      this.error.value = "An attachment was not uploaded. Try it again or remove it.";
      return;
    }
    this.#leave();
    await this.#saving;
    const { replyTo, ...rest } = draft;
    const message: Outgoing = {
      ...rest,
      id: this.id,
      ...(replyTo === undefined ? {} : { inReplyTo: replyTo }),
    };
    keepCopy(sendKey(this.id), { message, draft });
    noteUnsaved();
    const { promise: waited, resolve } = Promise.withResolvers<boolean>();
    const leave = () => {
      // The page goes before the time is up: hand it over now, and check when one opens again.
      void postMessage(message, true)?.catch(() => {});
    };
    addEventListener("pagehide", leave);
    // The time is kept here: a toast stays for as long as the pointer rests on it.
    const dismiss = showToast({
      message: "Sending …",
      icon: "send",
      durationMs: 2 * UNDO_SEND_MS,
      action: { label: "Undo", run: () => resolve(false) },
      onGone: () => resolve(true),
    });
    setTimeout(dismiss, UNDO_SEND_MS);
    const go = await waited;
    removeEventListener("pagehide", leave);
    if (!go) {
      dropCopy(sendKey(this.id));
      reopen(this.id, draft, this.#revision, null);
      return;
    }
    await deliver(message, draft, this.#revision);
  }
}

/** Tries until the server has taken it, or says why it will not; then the window comes back. */
async function deliver(message: Outgoing, draft: DraftText, revision: number): Promise<void> {
  for (let attempt = 1;; attempt++) {
    try {
      await postMessage(message);
      dropCopy(sendKey(message.id));
      dropCopy(draftKey(message.id));
      noteUnsaved();
      showToast({ message: "Message sent", icon: "check" });
      await refresh();
      return;
    } catch (error) {
      const away = error instanceof ApiFailure && (error.status === 0 || error.status === 503);
      if (away && attempt < SEND_TRIES_MAX) {
        await new Promise((resolve) => setTimeout(resolve, SEND_RETRY_MS));
        continue;
      }
      dropCopy(sendKey(message.id));
      reopen(message.id, draft, revision, error);
      return;
    }
  }
}

function reopen(id: string, draft: DraftText, revision: number, error: unknown): void {
  const compose = new Compose(id, draft, { revision, dirty: true });
  show(compose);
  if (error === null) return;
  const failure = error instanceof ApiFailure ? error : null;
  compose.error.value = failure === null || failure.status === 0 || failure.status === 503
    ? "Not sent yet. The mail store cannot be reached; your text is safe here and in Drafts."
    : `Not sent. ${failure.message}`;
  const all = [...draft.to, ...draft.cc, ...draft.bcc];
  compose.badAddress.value = all.find((one) => failure?.message.includes(bareAddress(one))) ?? null;
  compose.showCc.value ||= draft.cc.length > 0;
}

export const bareAddress = (text: string): string => /<([^<>]+)>\s*$/.exec(text)?.[1] ?? text;

function show(compose: Compose): void {
  const others = windows.value.filter(({ id }) => id !== compose.id);
  for (const extra of others.slice(0, Math.max(0, others.length - WINDOWS_MAX + 1))) {
    void extra.close();
  }
  for (const other of others) other.minimized.value = true;
  windows.value = [...others.slice(1 - WINDOWS_MAX), compose];
}

export function startCompose(
  draft: DraftText = EMPTY_DRAFT,
  options: { dirty?: boolean } = {},
): Compose {
  const compose = new Compose(freshDraftId(), draft, {
    revision: 0,
    dirty: options.dirty ?? false,
  });
  show(compose);
  return compose;
}

/** Opens a saved draft, or brings its window back to the front. */
export async function resumeDraft(id: string): Promise<void> {
  const present = windows.value.find((one) => one.id === id);
  if (present !== undefined) {
    present.minimized.value = false;
    return;
  }
  try {
    const { revision, ...draft } = await getDraft(id);
    show(new Compose(id, draft, { revision, dirty: false }));
  } catch (error) {
    const message = error instanceof ApiFailure ? error.message : "The draft could not be opened.";
    showToast({ message, icon: "triangle-alert" });
    void loadList({ quietly: true });
  }
}

/** Brings back what this browser kept, and sends on what was to be sent. */
export function startComposing(username: string): void {
  user = username;
  for (const key of Object.keys(localStorage)) {
    const value = readCopy(key);
    if (value === null) continue;
    if (key.startsWith(sendKey(""))) {
      const { message, draft } = value as { message: Outgoing; draft: DraftText };
      void deliver(message, draft, 0);
    } else if (key.startsWith(draftKey(""))) {
      const { draft, revision } = value as { draft: DraftText; revision: number };
      show(new Compose(key.slice(draftKey("").length), draft, { revision, dirty: true }));
    }
  }
  addEventListener("beforeunload", (event) => {
    // Text is safe in this browser; an upload that is under way is not.
    if (pendingUploads.value) event.preventDefault();
  });
}

function noteUnsaved(): void {
  unsaved.value = windows.value.some(({ saveState }) =>
    ["dirty", "saving", "failed"].includes(saveState.value)
  );
}

function keepCopy(key: string, value: unknown): void {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch { /* Full or forbidden: the server's copy has to do. */ }
}

function readCopy(key: string): unknown {
  if (!key.startsWith(`penncloud:${user}:`)) return null;
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null;
  }
}

function dropCopy(key: string): void {
  try {
    localStorage.removeItem(key);
  } catch { /* Nothing was kept, then. */ }
}
