/**
 * The queue of uploads: a few at once, each over tus, so that a lost connection, a dead frontend or
 * a reload costs what was on its way and no more. Lives as long as the page, whatever the page shows.
 *
 * A file counts as stored only when the server has linked it, which is when all its bytes are on the
 * disks of every replica: until then its bar stays short of the end.
 */
import { computed, effect, type Signal, signal } from "@preact/signals";
import { DetailedError, type PreviousUpload, Upload } from "tus-js-client";
import { connection, failureOf, unsaved } from "../../ui/api.ts";
import { ConflictBatch } from "./conflicts.ts";
import { type ConflictPolicy, postFolder } from "./drive_api.ts";
import { listing, load, loadUsage, placeKey } from "./drive_state.ts";

export type TransferState =
  | "waiting"
  | "sending"
  | "storing"
  | "asking"
  | "retrying"
  | "paused"
  | "done"
  | "failed"
  | "skipped";

export interface Transfer {
  readonly id: number;
  readonly file: File;
  readonly parent: string;
  readonly state: Signal<TransferState>;
  /** Bytes sent. */
  readonly sent: Signal<number>;
  /** Why it failed, in a sentence. */
  readonly error: Signal<string>;
  /** The file on the server, once it is one. */
  readonly item: Signal<string | null>;
  readonly batch: ConflictBatch;
  conflict: ConflictPolicy;
  upload: Upload | null;
}

/** What a drop or a choice of files brings: folders as paths relative to the place. */
export interface PickedFile {
  readonly file: File;
  /** Names of the folders between the place and the file. */
  readonly folders: readonly string[];
}

const AT_ONCE = 3;
/** Sent together with the request that begins the upload: one round trip for small files. */
const ONE_REQUEST_BYTES = 1024 * 1024;
/** About four minutes of trying; then the person is asked. */
const RETRY_DELAYS_MS = [0, 400, 800, 1500, 2500, 4000, ...Array<number>(40).fill(6000)];
const SPEED_WINDOW_MS = 4000;

export const transfers = signal<readonly Transfer[]>([]);
export const trayOpen = signal(true);
let lastId = 0;

const ACTIVE: readonly TransferState[] = ["waiting", "sending", "storing", "retrying", "asking"];
export const isActive = (transfer: Transfer): boolean => ACTIVE.includes(transfer.state.value);

export const totals = computed(() => {
  const all = transfers.value;
  const count = (...states: TransferState[]) =>
    all.filter(({ state }) => states.includes(state.value)).length;
  const counted = all.filter(({ state }) => !["failed", "skipped"].includes(state.value));
  const bytes = counted.reduce((sum, { file }) => sum + file.size, 0);
  const sent = counted.reduce((sum, one) => sum + sentOf(one), 0);
  return {
    active: all.filter(isActive).length,
    done: count("done"),
    failed: count("failed"),
    paused: count("paused"),
    bytes,
    sent,
  };
});
const sentOf = ({ state, file, sent }: Transfer): number =>
  state.value === "done" ? file.size : Math.min(sent.value, file.size);

/** Bytes per second over the last few seconds. */
export const speed = signal(0);
let samples: { atMs: number; sent: number }[] = [];
setInterval(() => {
  const { active, sent } = totals.value;
  if (active === 0) {
    samples = [];
    speed.value = 0;
    return;
  }
  const atMs = performance.now();
  samples = [...samples.filter((one) => atMs - one.atMs < SPEED_WINDOW_MS), { atMs, sent }];
  const first = samples[0]!, seconds = (atMs - first.atMs) / 1000;
  if (seconds > 0.5) speed.value = Math.max(0, (sent - first.sent) / seconds);
}, 500);

// Leaving the page would stop what is under way.
effect(() => {
  unsaved.value = totals.value.active > 0;
});
addEventListener("beforeunload", (event) => {
  if (totals.value.active > 0) event.preventDefault();
});

/** Puts files in line, making the folders that they lie in. */
export async function uploadFiles(
  picked: readonly PickedFile[],
  parent: string,
): Promise<void> {
  if (picked.length === 0) return;
  if (totals.value.active === 0) {
    transfers.value = transfers.value.filter(({ state }) =>
      state.value === "failed" || state.value === "paused"
    );
  }
  trayOpen.value = true;
  const batch = new ConflictBatch(picked.length > 1);
  const folders = new Map<string, Promise<string>>();
  const folderOf = (names: readonly string[]): Promise<string> => {
    if (names.length === 0) return Promise.resolve(parent);
    const key = names.join("/");
    let made = folders.get(key);
    if (made === undefined) {
      made = folderOf(names.slice(0, -1)).then(async (above) =>
        (await postFolder(above, names.at(-1)!, "replace")).id
      );
      folders.set(key, made);
    }
    return made;
  };
  for (const { file, folders: names } of picked) {
    let place = parent, error = "";
    try {
      place = await folderOf(names);
    } catch (cause) {
      error = cause instanceof Error ? cause.message : "Its folder could not be made.";
    }
    const transfer: Transfer = {
      id: ++lastId,
      file,
      parent: place,
      state: signal<TransferState>(error === "" ? "waiting" : "failed"),
      sent: signal(0),
      error: signal(error),
      item: signal(null),
      batch,
      conflict: "fail",
      upload: null,
    };
    transfers.value = [...transfers.value, transfer];
    startNext();
  }
  if (folders.size > 0) noteChanged(parent);
}

function startNext(): void {
  const busy =
    transfers.value.filter(({ state }) => state.value !== "waiting" && ACTIVE.includes(state.value))
      .length;
  for (
    const next of transfers.value.filter(({ state }) => state.value === "waiting")
      .slice(0, Math.max(0, AT_ONCE - busy))
  ) {
    void send(next);
  }
}

async function send(transfer: Transfer): Promise<void> {
  const { file, parent, state, sent } = transfer;
  state.value = "sending";
  const small = file.size <= ONE_REQUEST_BYTES;
  const upload = new Upload(file, {
    endpoint: "/api/v1/drive/uploads",
    retryDelays: RETRY_DELAYS_MS,
    uploadDataDuringCreation: small,
    storeFingerprintForResuming: !small,
    removeFingerprintOnSuccess: true,
    fingerprint: () =>
      Promise.resolve(["penncloud", parent, file.name, file.size, file.lastModified].join("|")),
    metadata: {
      filename: file.name,
      filetype: file.type,
      parent,
      conflict: transfer.conflict,
      modified: String(file.lastModified),
    },
    onProgress: (bytes) => {
      sent.value = bytes;
      state.value = bytes >= file.size ? "storing" : "sending";
    },
    onAfterResponse: (_request, response) => {
      transfer.item.value = response.getHeader("Upload-Item") ?? transfer.item.value;
    },
    onShouldRetry: (error) => {
      const retry = mayRetry(error as DetailedError);
      if (retry) {
        state.value = "retrying";
        noteAway(error as DetailedError);
      }
      return retry;
    },
    onSuccess: () => finish(transfer, "done"),
    onError: (error) => void onError(transfer, error),
  });
  transfer.upload = upload;
  // A former page may have begun the same file.
  const [previous]: PreviousUpload[] = small ? [] : await upload.findPreviousUploads();
  if (previous !== undefined) upload.resumeFromPreviousUpload(previous);
  // Paused or cancelled while we looked.
  if ((state.value as TransferState) === "sending") upload.start();
}

const statusOf = (error: DetailedError): number => error.originalResponse?.getStatus() ?? 0;
const codeOf = (error: DetailedError): string =>
  failureOf(statusOf(error), error.originalResponse?.getBody() ?? "").code;

function mayRetry(error: DetailedError): boolean {
  const status = statusOf(error);
  if (status === 409) return codeOf(error) === "upload_conflict";
  return status === 0 || status === 423 || status === 429 || (status >= 502 && status <= 504);
}

function noteAway(error: DetailedError): void {
  const status = statusOf(error);
  if (status === 0) connection.value = "offline";
  else if (status === 503) connection.value = "store_away";
}

async function onError(transfer: Transfer, error: Error): Promise<void> {
  const detailed = error instanceof DetailedError ? error : null;
  if (detailed !== null && codeOf(detailed) === "name_exists") {
    const existing = listing.value.items.find((item) =>
      item.name === transfer.file.name && item.parent === transfer.parent
    );
    transfer.state.value = "asking";
    // Another file may go on while the person thinks.
    startNext();
    const choice = await transfer.batch.ask(transfer.file.name, existing?.type !== "folder");
    if (choice === "skip") return finish(transfer, "skipped");
    transfer.conflict = choice === "replace" ? "replace" : "rename";
    transfer.state.value = "waiting";
    return startNext();
  }
  const status = detailed === null ? 0 : statusOf(detailed);
  if (status === 401) transfer.error.value = "You are logged out. Log in and try again.";
  else if (status === 0) transfer.error.value = "The server did not answer. Nothing is lost.";
  else {
    const body = detailed?.originalResponse?.getBody() ?? "";
    transfer.error.value = failureOf(status, body).message;
  }
  finish(transfer, "failed");
}

function finish(transfer: Transfer, state: TransferState): void {
  transfer.state.value = state;
  if (state === "done") {
    transfer.upload = null;
    if (connection.value !== "ok") connection.value = "ok";
    noteChanged(transfer.parent);
  }
  startNext();
}

export function pause(transfer: Transfer): void {
  void transfer.upload?.abort();
  finish(transfer, "paused");
}

/** Goes on after a pause or a failure: from the bytes that the server has. */
export function resume(transfer: Transfer): void {
  transfer.error.value = "";
  transfer.state.value = "waiting";
  startNext();
}

/** Takes it off the list; what the server has of it is freed. */
export function cancel(transfer: Transfer): void {
  const { upload } = transfer;
  transfers.value = transfers.value.filter((one) => one !== transfer);
  // A request that is refused because the upload is gone already changes nothing.
  upload?.abort(true).catch(() => {});
  startNext();
}

export function clearFinished(): void {
  transfers.value = transfers.value.filter(isActive);
}

/** Many files that end together ask for one new listing. */
let pending: ReturnType<typeof setTimeout> | undefined;
function noteChanged(parent: string): void {
  if (placeKey.value !== parent && pending === undefined) {
    void loadUsage();
    return;
  }
  clearTimeout(pending);
  pending = setTimeout(() => {
    pending = undefined;
    void load({ quietly: true });
    void loadUsage();
  }, 250);
}
