/**
 * Where mail lies in the store: every row and column name, and nothing else.
 *
 * One row per user holds the whole index of that user's mail, so that every change a reader could
 * see half of (delivery, move, flag, send, delete) is one row operation. Bodies lie elsewhere.
 *
 *     <user>/mail
 *       folder/<folderId>             JSON {name, role, uidValidity}
 *       count/<folderId>/uid          counter: the last UID given out; it never goes back
 *       count/<folderId>/total        counter
 *       count/<folderId>/unread       counter
 *       m/<folderId>/<ms, 14 digits>/<id>  JSON StoredEntry: what a list shows, by time of arrival
 *       u/<folderId>/<uid, 10 digits> JSON {id, ms}: the same messages by UID, for IMAP
 *       id/<messageId>                JSON Place: where its entry is, or that it is gone
 *       gone/<ms, 14 digits>/<id>     when a message went for good; its id/ stays as a tombstone
 *       draft/<messageId>             JSON DraftContent, the text that is being written
 *       upload/<uploadId>             JSON Upload: an attachment that waits for its message
 *       sent/<messageId>              JSON [{address, status, detail}] once nothing is pending
 *       out/<outId>/…                 a message on its way, see outbox.ts
 *     <bodyId>/body                   raw MIME or an upload, see body_store.ts
 *     <letter>=outbox                 index of all outboxes, see outbox.ts
 *
 * An entry takes about 600 bytes, so `store.row_max_bytes` (64 MiB) is room for some 100 000
 * messages per user; beyond it deliveries are refused with "mailbox full". Splitting old mail into
 * rows of its own is not here.
 */

export const FOLDER = "folder/";
export const COUNT = "count/";
export const GONE = "gone/";
export const UPLOAD = "upload/";
export const DRAFT = "draft/";

export const mailRow = (user: string): string => `${user}/mail`;
export const bodyRow = (bodyId: string): string => `${bodyId}/body`;

const digits = (value: number, count: number): string =>
  String(Math.max(0, Math.floor(value))).padStart(count, "0");

export const folderColumn = (folderId: string): string => `${FOLDER}${folderId}`;
export const uidCounter = (folderId: string): string => `${COUNT}${folderId}/uid`;
export const totalCounter = (folderId: string): string => `${COUNT}${folderId}/total`;
export const unreadCounter = (folderId: string): string => `${COUNT}${folderId}/unread`;
export const entryPrefix = (folderId: string): string => `m/${folderId}/`;
export const entryColumn = (folderId: string, at: { ms: number; id: string }): string =>
  `${entryPrefix(folderId)}${digits(at.ms, 14)}/${at.id}`;
export const uidPrefix = (folderId: string): string => `u/${folderId}/`;
export const uidColumn = (folderId: string, uid: number): string =>
  `${uidPrefix(folderId)}${digits(uid, 10)}`;
export const idColumn = (messageId: string): string => `id/${messageId}`;
export const goneColumn = (ms: number, messageId: string): string =>
  `${GONE}${digits(ms, 14)}/${messageId}`;
export const draftColumn = (messageId: string): string => `${DRAFT}${messageId}`;
export const uploadColumn = (uploadId: string): string => `${UPLOAD}${uploadId}`;
export const sentColumn = (messageId: string): string => `sent/${messageId}`;

/**
 * The index of outboxes is spread over nine rows, far apart in the key range: one row would make
 * one tablet take part in every mail, and many would make the sweep that reads them all dear. They
 * lie where the nine groups of cluster.toml begin, and each lists the bodies from there to the next,
 * so a body and its line in the index mostly lie in one group: one entry of its log writes both.
 */
export const OUTBOX_SHARDS = ["a", "d", "g", "j", "m", "p", "s", "u", "x"] as const;
export const outboxShardRow = (bodyId: string): string =>
  shardRow(OUTBOX_SHARDS.findLast((letter) => letter <= bodyId) ?? OUTBOX_SHARDS[0]);
export const shardRow = (shard: string): string => `${shard}=outbox`;
export const outboxPrefix = (outId: string): string => `out/${outId}/`;
