/**
 * The media type of a file by its name, and which types a browser may show in place.
 *
 * The name decides before what the uploader claims: browsers send what their operating system
 * happens to know, often nothing.
 */

const TYPES: Readonly<Record<string, string>> = {
  aac: "audio/aac",
  avi: "video/x-msvideo",
  avif: "image/avif",
  bmp: "image/bmp",
  css: "text/css",
  csv: "text/csv",
  doc: "application/msword",
  docx: "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
  eml: "message/rfc822",
  epub: "application/epub+zip",
  flac: "audio/flac",
  gif: "image/gif",
  gz: "application/gzip",
  heic: "image/heic",
  htm: "text/html",
  html: "text/html",
  ico: "image/x-icon",
  ics: "text/calendar",
  jpeg: "image/jpeg",
  jpg: "image/jpeg",
  js: "text/javascript",
  json: "application/json",
  log: "text/plain",
  m4a: "audio/mp4",
  m4v: "video/mp4",
  md: "text/markdown",
  mkv: "video/x-matroska",
  mov: "video/quicktime",
  mp3: "audio/mpeg",
  mp4: "video/mp4",
  mpeg: "video/mpeg",
  mpg: "video/mpeg",
  odp: "application/vnd.oasis.opendocument.presentation",
  ods: "application/vnd.oasis.opendocument.spreadsheet",
  odt: "application/vnd.oasis.opendocument.text",
  oga: "audio/ogg",
  ogg: "audio/ogg",
  ogv: "video/ogg",
  opus: "audio/ogg",
  pdf: "application/pdf",
  png: "image/png",
  ppt: "application/vnd.ms-powerpoint",
  pptx: "application/vnd.openxmlformats-officedocument.presentationml.presentation",
  rtf: "application/rtf",
  svg: "image/svg+xml",
  tar: "application/x-tar",
  tif: "image/tiff",
  tiff: "image/tiff",
  toml: "application/toml",
  ts: "text/x-typescript",
  tsx: "text/x-typescript",
  txt: "text/plain",
  vcf: "text/vcard",
  wav: "audio/wav",
  weba: "audio/webm",
  webm: "video/webm",
  webp: "image/webp",
  xls: "application/vnd.ms-excel",
  xlsx: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
  xml: "application/xml",
  yaml: "application/yaml",
  yml: "application/yaml",
  zip: "application/zip",
};

/** `claimed` is what the uploader said; it counts only where the name tells nothing. */
export function contentTypeOf(name: string, claimed?: string | null): string {
  const extension = name.slice(name.lastIndexOf(".") + 1).toLowerCase();
  const known = name.includes(".") ? TYPES[extension] : undefined;
  if (known !== undefined) return known;
  const type = claimed?.split(";")[0]?.trim().toLowerCase() ?? "";
  const plausible = /^[a-z0-9][a-z0-9!#$&^_.+-]{0,63}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,99}$/.test(type);
  // These two are what HTTP clients say when nobody told them anything.
  const meaningless = type === "application/x-www-form-urlencoded" || type.startsWith("multipart/");
  return plausible && !meaningless ? type : "application/octet-stream";
}

/** Types that carry no script which a browser would run in our origin. */
export function isSafeInline(type: string): boolean {
  if (type.startsWith("audio/") || type.startsWith("video/")) return true;
  if (type.startsWith("image/")) return type !== "image/svg+xml";
  return type === "application/pdf" || type === "text/plain";
}
