/**
 * What the parts of mail share in one process, made once by `Mail`.
 */
import type { Env } from "../../kv/env.ts";
import type { Kv } from "../../kv/kv.ts";
import type { ClusterConfig } from "../../proto/cluster_config.ts";
import type { Acceptance } from "./acceptance.ts";
import { isLocal, localUser } from "./addresses.ts";
import type { Attachments } from "./attachments.ts";
import type { BodyStore } from "./body_store.ts";
import type { Drafts } from "./drafts.ts";
import { Mailbox } from "./mailbox.ts";
import type { Outbox } from "./outbox.ts";
import type { LocalUsers, OutboxWorker } from "./outbox_worker.ts";

export interface MailParts {
  readonly kv: Kv;
  readonly env: Env;
  readonly config: ClusterConfig["mail"];
  readonly mailDomain: string;
  readonly users: LocalUsers;
  readonly bodies: BodyStore;
  readonly outbox: Outbox;
  readonly acceptance: Acceptance;
  readonly attachments: Attachments;
  readonly drafts: Drafts;
  readonly worker: OutboxWorker;
}

export const mailboxOf = ({ kv, env }: Pick<MailParts, "kv" | "env">, user: string): Mailbox =>
  new Mailbox({ kv, env, user });

export const addressOf = ({ mailDomain }: Pick<MailParts, "mailDomain">, user: string): string =>
  `${user}@${mailDomain}`;

/** The Message-ID header of a message that we make. */
export const messageIdFor = ({ mailDomain }: Pick<MailParts, "mailDomain">, id: string): string =>
  `<${id}@${mailDomain}>`;

/** False for an address in our domain that belongs to nobody. */
export async function isKnownRecipient(
  { users, mailDomain }: Pick<MailParts, "users" | "mailDomain">,
  address: string,
): Promise<boolean> {
  return !isLocal(address, mailDomain) || await users.find(localUser(address)) !== null;
}
