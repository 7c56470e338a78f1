/**
 * Every call of the HTTP API in a line or three: what `/api/openapi.json` and `/api/docs` are made
 * of. tests/web/openapi_test.ts compares it with the routes that exist, in both directions.
 */

export interface ApiOperation {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS";
  /** Below `/api/v1`, with `:name` for parameters. */
  readonly path: string;
  readonly summary: string;
  /** Query parameters and what they mean. */
  readonly query?: Readonly<Record<string, string>>;
  /** Fields of the JSON body; a name that ends in `?` may be left out. */
  readonly json?: Readonly<Record<string, FieldType>>;
  /** The body is the bytes of a file. */
  readonly bytes?: boolean;
  /** What a good answer holds. */
  readonly answer: readonly [status: number, description: string];
  /** Codes that belong to this call; those of the table below may come with any. */
  readonly errors?: readonly string[];
  /** May be called without being logged in. */
  readonly open?: boolean;
}

export type FieldType =
  | "string"
  | "boolean"
  | "integer"
  | "strings"
  | "addresses"
  | "object"
  | "objects";

export interface ApiSection {
  readonly name: "Accounts" | "Mail" | "Drive" | "Admin";
  readonly text: string;
  readonly operations: readonly ApiOperation[];
}

/** Codes that any call may answer with. */
export const COMMON_ERRORS: Readonly<Record<string, string>> = {
  not_signed_in: "401: no session and no HTTP Basic",
  other_origin: "403: a browser asked on behalf of another website",
  not_found: "404: there is no such thing",
  too_large: "413: the body, or what it would make, is too large",
  invalid_request: "422: a field is missing or wrong; the message names it",
  unavailable: "503 with Retry-After: nothing happened; the store is changing over",
  busy: "503 with Retry-After: nothing happened; too much at once",
  outcome_unknown: "503 with Retry-After: it may or may not have happened; look before you repeat",
  disk_full: "507: reads go on",
};

const PAGE = { limit: "at most so many", cursor: "`next` of the page before" };
const MESSAGE_PAGE = "`{messages:[{id,uid,folder,from,to,subject,date,size,flags,snippet," +
  "hasAttachments}],next}`, newest first";
const DRAFT = {
  "to?": "addresses",
  "cc?": "addresses",
  "bcc?": "addresses",
  "subject?": "string",
  "text?": "string",
  "html?": "string",
  "attachments?": "objects",
  "revision?": "integer",
} as const;

const ACCOUNTS: ApiSection = {
  name: "Accounts",
  text: "Logging in gives the cookie `penncloud_session`. Scripts may use HTTP Basic with an app " +
    "password instead.",
  operations: [
    {
      method: "POST",
      path: "/accounts",
      summary: "Sign up; logs in as well",
      json: { username: "string", password: "string" },
      answer: [201, "`{username,address}`"],
      errors: ["name_taken", "invalid_username", "weak_password", "signup_closed"],
      open: true,
    },
    {
      method: "POST",
      path: "/session",
      summary: "Log in",
      json: { username: "string", password: "string" },
      answer: [200, "`{username,address,admin}`"],
      errors: ["wrong_credentials", "too_many_attempts"],
      open: true,
    },
    {
      method: "GET",
      path: "/session",
      summary: "Who is logged in",
      answer: [200, "`{username,address,admin}`"],
    },
    {
      method: "DELETE",
      path: "/session",
      summary: "Log out",
      answer: [204, "nothing"],
      open: true,
    },
    {
      method: "GET",
      path: "/account",
      summary: "The own account",
      answer: [200, "`{username,address,admin,createdMs,passwordChangedMs}`"],
    },
    {
      method: "PUT",
      path: "/account/password",
      summary: "Change the password; every other session ends",
      json: { current: "string", new: "string" },
      answer: [204, "nothing"],
      errors: ["wrong_password", "weak_password", "too_many_attempts"],
    },
    {
      method: "GET",
      path: "/account/sessions",
      summary: "Where one is logged in",
      answer: [200, "`{sessions:[{id,createdMs,lastUsedMs,expiresMs,device,address,current}]}`"],
    },
    {
      method: "DELETE",
      path: "/account/sessions",
      summary: "End every other session",
      answer: [204, "nothing"],
    },
    {
      method: "DELETE",
      path: "/account/sessions/:id",
      summary: "End one session",
      answer: [204, "nothing"],
    },
    {
      method: "GET",
      path: "/account/app-passwords",
      summary: "App passwords, without the passwords",
      answer: [200, "`{appPasswords:[{id,label,createdMs,lastUsedMs}]}`"],
    },
    {
      method: "POST",
      path: "/account/app-passwords",
      summary: "Make an app password",
      json: { label: "string" },
      answer: [201, "`{id,label,createdMs,lastUsedMs,password}`; the password is shown this once"],
      errors: ["too_many"],
    },
    {
      method: "DELETE",
      path: "/account/app-passwords/:id",
      summary: "Revoke an app password",
      answer: [204, "nothing"],
    },
  ],
};

const MAIL: ApiSection = {
  name: "Mail",
  text: "Every mailbox has INBOX, Sent, Drafts, Trash and Junk.",
  operations: [
    {
      method: "GET",
      path: "/mail/folders",
      summary: "Folders with their counts",
      answer: [200, "`[{id,name,role,total,unread}]`"],
    },
    {
      method: "POST",
      path: "/mail/folders",
      summary: "Make a folder",
      json: { name: "string" },
      answer: [201, "the folder"],
    },
    {
      method: "GET",
      path: "/mail/messages",
      summary: "Messages of a folder",
      query: { folder: "name or id; default INBOX", ...PAGE },
      answer: [200, MESSAGE_PAGE],
    },
    {
      method: "GET",
      path: "/mail/search",
      summary: "Messages of all folders that match",
      query: { q: "words to look for", ...PAGE },
      answer: [200, MESSAGE_PAGE],
    },
    {
      method: "GET",
      path: "/mail/messages/:id",
      summary: "One message",
      query: { images: "1 keeps remote images" },
      answer: [200, "the message with `text`, safe `html` and `attachments`"],
    },
    {
      method: "GET",
      path: "/mail/messages/:id/frame",
      summary: "A message's HTML as a document with a policy of its own",
      query: { images: "1 keeps remote images" },
      answer: [200, "text/html"],
    },
    {
      method: "GET",
      path: "/mail/messages/:id/raw",
      summary: "A message as it came",
      query: { download: "1 saves it" },
      answer: [200, "message/rfc822"],
    },
    {
      method: "GET",
      path: "/mail/messages/:id/attachments/:n",
      summary: "One attachment",
      query: { download: "1 saves it" },
      answer: [200, "the bytes"],
    },
    {
      method: "POST",
      path: "/mail/messages",
      summary: "Send a message; the same id sends once",
      json: {
        "id?": "string",
        to: "addresses",
        "cc?": "addresses",
        "bcc?": "addresses",
        "subject?": "string",
        "text?": "string",
        "html?": "string",
        "inReplyTo?": "string",
        "references?": "strings",
        "forwards?": "string",
        "attachments?": "objects",
      },
      answer: [202, "`{id,recipients:[{address,status}]}`"],
    },
    {
      method: "PATCH",
      path: "/mail/messages/:id",
      summary: "Mark or move a message",
      json: { "flags?": "object", "folder?": "string" },
      answer: [200, "the message"],
    },
    {
      method: "DELETE",
      path: "/mail/messages/:id",
      summary: "Move to Trash; from there, delete for good",
      answer: [200, "`{result}`"],
    },
    {
      method: "POST",
      path: "/mail/bulk",
      summary: "Mark, move or delete up to 500 messages",
      json: { ids: "strings", "action?": "string", "flags?": "object", "folder?": "string" },
      answer: [200, "`{done,failed:[{id,code}]}`"],
    },
    {
      method: "POST",
      path: "/mail/uploads",
      summary: "Bring a file to attach",
      query: { name: "the file's name" },
      bytes: true,
      answer: [201, "`{upload,filename,contentType,size}`"],
    },
    {
      method: "DELETE",
      path: "/mail/uploads/:id",
      summary: "Discard a file that was brought",
      answer: [204, "nothing"],
    },
    {
      method: "POST",
      path: "/mail/drafts",
      summary: "Start a draft",
      json: DRAFT,
      answer: [201, "the draft"],
    },
    {
      method: "PUT",
      path: "/mail/drafts/:id",
      summary: "Save a draft under an id of one's own; repeating does no harm",
      json: DRAFT,
      answer: [200, "the draft"],
    },
    { method: "GET", path: "/mail/drafts/:id", summary: "One draft", answer: [200, "the draft"] },
    {
      method: "DELETE",
      path: "/mail/drafts/:id",
      summary: "Discard a draft",
      answer: [204, "nothing"],
    },
  ],
};

const DRIVE: ApiSection = {
  name: "Drive",
  text: "Items go by id; `root` is the top folder. Uploads that can resume follow tus 1.0.",
  operations: [
    {
      method: "GET",
      path: "/drive/items/:id",
      summary: "An item, its path and a page of its children",
      query: PAGE,
      answer: [
        200,
        "`{item:{id,name,type,size,contentType,modified,parent,etag},path:[…],children:[…],next}`",
      ],
    },
    {
      method: "POST",
      path: "/drive/folders",
      summary: "Make a folder",
      json: { "parent?": "string", name: "string", "conflict?": "string" },
      answer: [201, "the item"],
      errors: ["name_exists"],
    },
    {
      method: "PUT",
      path: "/drive/files",
      summary: "Store a file; the body is streamed",
      query: {
        parent: "folder id; default root",
        name: "the file's name",
        conflict: "fail, replace or rename",
        modified: "when it was last changed",
      },
      bytes: true,
      answer: [201, "the item"],
      errors: ["name_exists", "quota_exceeded"],
    },
    {
      method: "GET",
      path: "/drive/items/:id/content",
      summary: "A file's bytes; takes Range and If-None-Match",
      query: { download: "1 saves it" },
      answer: [200, "the bytes"],
    },
    {
      method: "GET",
      path: "/drive/items/:id/archive",
      summary: "A folder as a zip, streamed",
      answer: [200, "application/zip"],
    },
    {
      method: "GET",
      path: "/drive/archive",
      summary: "Several items as a zip, streamed",
      query: { id: "an item; may be repeated" },
      answer: [200, "application/zip"],
    },
    {
      method: "PATCH",
      path: "/drive/items/:id",
      summary: "Rename or move",
      json: { "name?": "string", "parent?": "string", "conflict?": "string" },
      answer: [200, "the item"],
      errors: ["name_exists", "into_itself"],
    },
    {
      method: "DELETE",
      path: "/drive/items/:id",
      summary: "Move to the trash",
      query: { forever: "1 deletes for good" },
      answer: [204, "nothing"],
    },
    {
      method: "GET",
      path: "/drive/trash",
      summary: "What is in the trash",
      query: PAGE,
      answer: [200, "`{children:[…],count,next}`"],
    },
    {
      method: "POST",
      path: "/drive/trash/:id/restore",
      summary: "Bring back from the trash",
      answer: [200, "the item"],
    },
    {
      method: "DELETE",
      path: "/drive/trash/:id",
      summary: "Delete for good",
      answer: [204, "nothing"],
    },
    {
      method: "DELETE",
      path: "/drive/trash",
      summary: "Empty the trash",
      answer: [204, "nothing"],
    },
    {
      method: "GET",
      path: "/drive/search",
      summary: "Items by name",
      query: { q: "part of a name" },
      answer: [200, "items with their paths"],
    },
    {
      method: "GET",
      path: "/drive/usage",
      summary: "Bytes used and allowed",
      answer: [200, "`{used,quota,trashDays}`"],
    },
    {
      method: "OPTIONS",
      path: "/drive/uploads",
      summary: "tus: what the server can do",
      answer: [204, "headers"],
      open: true,
    },
    {
      method: "POST",
      path: "/drive/uploads",
      summary: "tus: begin an upload; metadata `parent`, `filename`, `filetype`",
      answer: [201, "`Location` of the upload"],
    },
    {
      method: "OPTIONS",
      path: "/drive/uploads/:id",
      summary: "tus: what the server can do",
      answer: [204, "headers"],
      open: true,
    },
    {
      method: "GET",
      path: "/drive/uploads/:id",
      summary: "tus: how far an upload is (HEAD)",
      answer: [200, "`Upload-Offset`"],
    },
    {
      method: "PATCH",
      path: "/drive/uploads/:id",
      summary: "tus: append bytes",
      bytes: true,
      answer: [204, "`Upload-Offset`"],
    },
    {
      method: "DELETE",
      path: "/drive/uploads/:id",
      summary: "tus: give an upload up",
      answer: [204, "nothing"],
    },
    {
      method: "POST",
      path: "/drive/uploads/:id",
      summary: "tus: any of the above by X-HTTP-Method-Override",
      answer: [204, "as the method asked for"],
    },
  ],
};

const ADMIN: ApiSection = {
  name: "Admin",
  text: "For administrators. Nodes go by their port.",
  operations: [
    {
      method: "GET",
      path: "/admin/cluster",
      summary: "The cluster's state, as `penncloud admin status --json` prints it",
      answer: [200, "nodes, tablets and problems"],
    },
    ...(["kill", "restart", "drain"] as const).map((order): ApiOperation => ({
      method: "POST",
      path: `/admin/nodes/:port/${order}`,
      summary: `${order[0]!.toUpperCase()}${order.slice(1)} a node`,
      answer: [202, "accepted"],
      errors: ["no_such_node", "no_supervisor"],
    })),
    {
      method: "POST",
      path: "/admin/tablets/split",
      summary: "Make a boundary between two tablets; it stays until it is merged away",
      json: { key: "string" },
      answer: [200, "`{kind,key}`, once it is done"],
      errors: ["cannot_reshape"],
    },
    {
      method: "POST",
      path: "/admin/tablets/merge",
      summary: "Merge the tablet that begins at a key into the one before it",
      json: { key: "string" },
      answer: [200, "`{kind,key}`, once it is done"],
      errors: ["cannot_reshape"],
    },
    {
      method: "GET",
      path: "/admin/nodes/:port/rows",
      summary: "Raw rows that a backend holds",
      query: { start: "first row wanted", ...PAGE },
      answer: [200, "`{port,rows,next}`; large values as size and a link"],
    },
    {
      method: "GET",
      path: "/admin/nodes/:port/value",
      summary: "One raw value in full",
      query: { row: "its row", column: "its column" },
      answer: [200, "the bytes"],
    },
    {
      method: "GET",
      path: "/admin/events",
      summary: "Changes of nodes and tablets as they happen",
      answer: [200, "text/event-stream"],
    },
  ],
};

export const API_SECTIONS: readonly ApiSection[] = [ACCOUNTS, MAIL, DRIVE, ADMIN];
