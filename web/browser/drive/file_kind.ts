/** What a file is to people: a word, an icon, a colour, and how it can be shown. */
import type { IconName } from "../../ui/icons/icon_names.ts";
import type { Item } from "./drive_api.ts";

export type PreviewKind = "image" | "audio" | "video" | "pdf" | "text" | "none";

export interface FileKind {
  readonly word: string;
  readonly icon: IconName;
  /** One of the hues of tokens.css. */
  readonly hue: number;
  readonly preview: PreviewKind;
}

const FOLDER: FileKind = { word: "Folder", icon: "folder", hue: 1, preview: "none" };
const OTHER: FileKind = { word: "File", icon: "file", hue: 8, preview: "none" };
const TEXT_MAX_BYTES = 20_000_000;

/** Types that `image/*` covers but browsers do not draw. */
const UNSEEN_IMAGES = new Set(["image/heic", "image/tiff"]);
const UNSEEN_VIDEOS = new Set(["video/x-msvideo", "video/mpeg"]);
const CODE = new Set([
  "application/json",
  "application/toml",
  "application/xml",
  "application/yaml",
  "text/css",
  "text/html",
  "text/javascript",
  "text/x-typescript",
]);

export function kindOf(item: Item): FileKind {
  if (item.type === "folder") return FOLDER;
  const type = item.contentType ?? "", extension = extensionOf(item.name);
  const known = (word: string, icon: IconName, hue: number, preview: PreviewKind): FileKind => ({
    word,
    icon,
    hue,
    preview,
  });
  if (type.startsWith("image/")) {
    return known("Image", "file-image", 4, UNSEEN_IMAGES.has(type) ? "none" : "image");
  }
  if (type.startsWith("audio/")) return known("Audio", "file-audio", 6, "audio");
  if (type.startsWith("video/")) {
    return known("Video", "file-video-camera", 7, UNSEEN_VIDEOS.has(type) ? "none" : "video");
  }
  if (type === "application/pdf") return known("PDF", "file-text", 5, "pdf");
  if (CODE.has(type)) return known("Code", "file-code", 2, textual(item));
  if (/spreadsheet|ms-excel|text\/csv/.test(type)) {
    return known("Table", "file-spreadsheet", 1, type === "text/csv" ? textual(item) : "none");
  }
  if (/presentation|powerpoint/.test(type)) return known("Slides", "presentation", 3, "none");
  if (/wordprocessing|msword|opendocument\.text|rtf/.test(type)) {
    return known("Document", "file-text", 2, "none");
  }
  if (type.startsWith("text/")) return known("Text", "file-text", 2, textual(item));
  if (/zip|gzip|x-tar/.test(type)) return known("Archive", "file-archive", 3, "none");
  // Names such as "Makefile" and ".gitignore" are text more often than not.
  if (item.size < 64_000 && extension === "") return { ...OTHER, preview: "text" };
  return OTHER;
}

const textual = (item: Item): PreviewKind => item.size <= TEXT_MAX_BYTES ? "text" : "none";

function extensionOf(name: string): string {
  const dot = name.lastIndexOf(".");
  return dot > 0 ? name.slice(dot + 1) : "";
}

/** Large pictures would cost more to fetch than a thumbnail is worth. */
export const hasThumbnail = (item: Item): boolean =>
  kindOf(item).preview === "image" && item.size <= 6_000_000;

/** The name up to its extension, which renaming selects. */
export function stemLength(item: Item): number {
  const extension = item.type === "file" ? extensionOf(item.name) : "";
  return extension === "" ? item.name.length : item.name.length - extension.length - 1;
}
