/** The drive's calls as the browser makes them; shapes are those of web/routes/drive.ts. */
import { api } from "../../ui/api.ts";

export interface Item {
  readonly id: string;
  readonly name: string;
  readonly type: "file" | "folder";
  readonly size: number;
  readonly contentType: string | null;
  readonly modified: string;
  readonly created: string;
  readonly parent: string | null;
  readonly etag: string;
  /** In the trash: when it was deleted, and the names of the folders above it before. */
  readonly deleted?: string;
  readonly origin?: readonly string[];
  /** Found by a search: the names of the folders above it. */
  readonly path?: readonly string[];
}

export interface PathStep {
  readonly id: string;
  readonly name: string;
}

export interface FolderPage {
  readonly item: Item;
  readonly path: readonly PathStep[];
  readonly children: readonly Item[];
  readonly count: number;
  readonly next: string | null;
}

export interface TrashPage {
  readonly children: readonly Item[];
  readonly count: number;
  readonly next: string | null;
}

export interface Usage {
  readonly used: number;
  readonly quota: number | null;
  readonly trashDays: number;
}

export type ConflictPolicy = "fail" | "replace" | "rename";

export interface PageRequest {
  readonly cursor?: string | null;
  readonly limit: number;
  readonly signal?: AbortSignal;
}

const base = (id: string) => `/drive/items/${encodeURIComponent(id)}`;
const query = ({ cursor, limit }: PageRequest) =>
  `?limit=${limit}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`;
const abort = ({ signal }: PageRequest) => signal === undefined ? {} : { signal };

export const getFolder = (id: string, page: PageRequest) =>
  api<FolderPage>(base(id) + query(page), abort(page));
export const getTrash = (page: PageRequest) =>
  api<TrashPage>(`/drive/trash${query(page)}`, abort(page));
export const searchItems = (text: string, signal: AbortSignal) =>
  api<{ items: Item[]; more: boolean }>(`/drive/search?q=${encodeURIComponent(text)}`, { signal });
export const getUsage = () => api<Usage>("/drive/usage");

export const postFolder = (parent: string, name: string, conflict: ConflictPolicy = "fail") =>
  api<Item>("/drive/folders", { method: "POST", json: { parent, name, conflict } });
export const patchItem = (
  id: string,
  change: { name?: string; parent?: string; conflict?: ConflictPolicy },
) => api<Item>(base(id), { method: "PATCH", json: change });
export const deleteItem = (id: string) => api<void>(base(id), { method: "DELETE" });
export const restoreItem = (id: string) =>
  api<Item>(`/drive/trash/${id}/restore`, { method: "POST" });
export const purgeItem = (id: string) => api<void>(`/drive/trash/${id}`, { method: "DELETE" });
export const emptyTrash = () => api<void>("/drive/trash", { method: "DELETE" });

export const contentUrl = (item: Item): string => `/api/v1${base(item.id)}/content`;

/** One file as it is; anything else as a zip. */
export function downloadUrl(items: readonly Item[]): string {
  const [only] = items;
  if (items.length === 1 && only!.type === "file") return `${contentUrl(only!)}?download=1`;
  return `/api/v1/drive/archive?${items.map(({ id }) => `id=${encodeURIComponent(id)}`).join("&")}`;
}
