/**
 * The three doors of SMTP, and who may do what at each:
 *
 *     smtp         other servers, for users of ours; never for anybody else. STARTTLS offered
 *     submission   our users' mail programs, for anybody. STARTTLS before AUTH
 *     submissions  the same over TLS from the first byte
 *
 * A message gets its "250" when the store has accepted it with all recipients, not before; any doubt
 * is a "4xx", and the other side tries again. Replies to errors of the store and of mail are mapped
 * here, once. Message bytes stream into the store; memory per connection is bounded.
 */
import { SMTPServer, type SMTPServerOptions, type SMTPServerSession } from "smtp-server";
import type { SMTPServerDataStream } from "smtp-server";
import { AccountError } from "../apps/accounts/account_error.ts";
import type { Accounts } from "../apps/accounts/accounts.ts";
import { isLocal, localUser, normalizeAddress } from "../apps/mail/addresses.ts";
import type { Mail } from "../apps/mail/mail.ts";
import { MailError, type MailErrorCode } from "../apps/mail/mail_error.ts";
import type { Env } from "../kv/env.ts";
import { KvError } from "../kv/errors.ts";

export interface SmtpDoorOptions {
  readonly mail: Mail;
  readonly accounts: Pick<Accounts, "verifyPassword">;
  readonly env: Env;
  readonly host: string;
  readonly ports: {
    readonly smtp: number;
    readonly submission: number;
    readonly submissions: number;
  };
  /** PEM. */
  readonly tls: { readonly cert: string; readonly key: string };
  readonly messageBytesMax: number;
  readonly recipientsMax: number;
  /** Once it is settled what its sender hears; `bytes` as they came in. */
  readonly onMessage?: (message: { door: SmtpDoor; outcome: SmtpOutcome; bytes: number }) => void;
}

export type SmtpDoor = "smtp" | "submission" | "submissions";
export type SmtpOutcome = "accepted" | "refused" | "deferred";

export interface SmtpDoors {
  /** The ports that were bound, where 0 was asked for. */
  readonly ports: Readonly<Record<SmtpDoor, number>>;
  connections(): number;
  close(): Promise<void>;
}

const CONNECTIONS_MAX = 200;
const SOCKET_MS = 120_000;
const CLOSE_MS = 3_000;

class SmtpReply extends Error {
  constructor(readonly responseCode: number, enhanced: string, message: string) {
    super(`${enhanced} ${message}`);
  }
}

const MAIL_REPLIES: Record<MailErrorCode, [number, string]> = {
  not_found: [550, "5.1.1"],
  invalid_address: [553, "5.1.3"],
  unknown_recipient: [550, "5.1.1"],
  no_recipients: [554, "5.5.1"],
  too_many_recipients: [452, "4.5.3"],
  message_too_large: [552, "5.3.4"],
  header_too_large: [552, "5.3.4"],
  mail_loop: [554, "5.4.6"],
  invalid_message: [554, "5.6.0"],
  unknown_folder: [451, "4.3.0"],
  folder_exists: [451, "4.3.0"],
  invalid_folder: [451, "4.3.0"],
  draft_conflict: [451, "4.3.0"],
  draft_gone: [451, "4.3.0"],
  not_your_address: [553, "5.7.1"],
  attachment_missing: [554, "5.6.0"],
  too_slow: [451, "4.4.2"],
  conflict: [451, "4.3.0"],
};

function toReply(error: unknown): SmtpReply {
  if (error instanceof SmtpReply) return error;
  if (error instanceof MailError) return new SmtpReply(...MAIL_REPLIES[error.code], error.message);
  if (error instanceof KvError) {
    return error.code === "disk_full" || error.code === "row_too_large"
      ? new SmtpReply(452, "4.3.1", "The disk is full; try again later")
      : new SmtpReply(451, "4.3.0", "The mail store is away; try again in a minute");
  }
  if (error instanceof AccountError) {
    return error.code === "wrong_credentials"
      ? new SmtpReply(535, "5.7.8", "User name or password is not right")
      : new SmtpReply(454, "4.7.0", error.message);
  }
  return new SmtpReply(451, "4.3.0", "Something went wrong here; try again later");
}

/** @throws when a port cannot be bound; nothing stays open then */
export async function openSmtpDoors(options: SmtpDoorOptions): Promise<SmtpDoors> {
  const servers = new Map<SmtpDoor, SMTPServer>();
  const close = async () => {
    await Promise.all(
      [...servers.values()].map((server) =>
        new Promise<void>((resolve) => server.close(() => resolve()))
      ),
    );
  };
  const ports: Record<SmtpDoor, number> = { ...options.ports };
  try {
    for (const door of ["smtp", "submission", "submissions"] as const) {
      const server = new SMTPServer(serverOptions(door, options));
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen(options.ports[door], options.host, () => {
          server.off("error", reject);
          resolve();
        });
      });
      // Broken connections; the process and the other connections go on.
      server.on(
        "error",
        (error) =>
          options.env.log("debug", "an SMTP connection failed", { door, error: error.message }),
      );
      servers.set(door, server);
      const address = (server as unknown as { server: { address(): { port: number } } }).server
        .address();
      ports[door] = address.port;
    }
  } catch (error) {
    await close();
    throw error;
  }
  const connections = () =>
    [...servers.values()].reduce((sum, server) => sum + server.connections.size, 0);
  return { ports, connections, close };
}

function serverOptions(door: SmtpDoor, options: SmtpDoorOptions): SMTPServerOptions {
  const { mail, accounts, env } = options, submission = door !== "smtp";

  /** Runs an async handler and answers with the reply that its error stands for. */
  const reply = (work: Promise<unknown>, callback: (error?: Error | null) => void) => {
    work.then(() => callback(null), (error: unknown) => {
      const known = toReply(error);
      if (known.responseCode === 451 && !(error instanceof KvError)) {
        env.log("error", "an SMTP command failed", { door, error: String(error) });
      }
      callback(known);
    });
  };

  return {
    name: mail.mailDomain,
    banner: "PennCloud",
    secure: door === "submissions",
    cert: options.tls.cert,
    key: options.tls.key,
    size: options.messageBytesMax,
    rejectOversized: true,
    maxRecipients: options.recipientsMax,
    maxClients: CONNECTIONS_MAX,
    socketTimeout: SOCKET_MS,
    closeTimeout: CLOSE_MS,
    disableReverseLookup: true,
    logger: false,
    authMethods: ["PLAIN", "LOGIN"],
    authOptional: !submission,
    hideDSN: true,
    hideREQUIRETLS: true,
    // Addresses outside ASCII would have to be carried on to servers that do not know them.
    hideSMTPUTF8: true,
    allowInsecureAuth: false,

    // A mail program that sees AUTH before TLS may well send the password in the clear.
    onConnect(session, callback) {
      if (!session.secure) session.disabledCommands = ["AUTH"];
      callback();
    },
    onSecure(_socket, session, callback) {
      session.disabledCommands = submission ? [] : ["AUTH"];
      callback();
    },
    onAuth(auth, session, callback) {
      const { username = "", password } = auth;
      accounts.verifyPassword({
        username,
        password: password ?? "",
        address: session.remoteAddress,
      }).then(
        (account) => callback(null, { user: account.username }),
        (error: unknown) => callback(toReply(error)),
      );
    },

    onMailFrom({ address }, session, callback) {
      reply(checkSender(address, session), callback);
    },
    onRcptTo({ address }, _session, callback) {
      reply(checkRecipient(address), callback);
    },
    onData(stream, session, callback) {
      const work = takeMessage(stream, session);
      const ended = (outcome: SmtpOutcome) =>
        options.onMessage?.({ door, outcome, bytes: stream.byteLength });
      work.then(
        () => ended("accepted"),
        (error) => ended(toReply(error).responseCode < 500 ? "deferred" : "refused"),
      );
      reply(work, callback);
    },
  };

  // deno-lint-ignore require-await -- so that what it throws comes out as a rejection
  async function checkSender(address: string, session: SMTPServerSession): Promise<void> {
    // The server asks for this itself, but only where it offers AUTH: not before STARTTLS.
    if (submission && session.user === undefined) {
      throw new SmtpReply(530, "5.7.0", session.secure ? "Log in first" : "Use STARTTLS first");
    }
    if (!submission && address === "") return;
    const normalized = normalizeAddress(address);
    if (normalized === null) throw new SmtpReply(553, "5.1.7", `"${address}" is not an address`);
    if (!submission) return;
    const user = String(session.user);
    if (!isLocal(normalized, mail.mailDomain) || localUser(normalized) !== user) {
      const own = `${user}@${mail.mailDomain}`;
      throw new SmtpReply(553, "5.7.1", `You can only send as ${own}`);
    }
  }

  async function checkRecipient(address: string): Promise<void> {
    const normalized = normalizeAddress(address);
    if (normalized === null) throw new SmtpReply(553, "5.1.3", `"${address}" is not an address`);
    if (!submission && !isLocal(normalized, mail.mailDomain)) {
      throw new SmtpReply(
        550,
        "5.7.1",
        `No relaying: this server takes mail for ${mail.mailDomain}`,
      );
    }
    if (!await mail.isKnownRecipient(normalized)) {
      throw new SmtpReply(550, "5.1.1", `There is nobody with the address ${normalized} here`);
    }
  }

  async function takeMessage(stream: SMTPServerDataStream, session: SMTPServerSession) {
    const { mailFrom, rcptTo } = session.envelope;
    const recipients = rcptTo.map(({ address }) => normalizeAddress(address)!);
    const source = bounded(stream);
    const message = { recipients, source, trace: traceField(session) };
    try {
      if (submission) await mail.smtp.submit(String(session.user), message);
      else {
        const envelopeFrom = mailFrom === false ? "" : mailFrom.address;
        await mail.smtp.receive({ ...message, envelopeFrom });
      }
    } catch (error) {
      // The other side talks on until its last dot, and hears the answer only then. A reader that is
      // left in the middle would keep the stream from flowing.
      await source.return(undefined);
      await drain(stream);
      throw error;
    }
  }

  async function* bounded(stream: SMTPServerDataStream): AsyncGenerator<Uint8Array> {
    // Whoever stops early leaves the stream whole, for `drain` to read to its end.
    for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
      yield chunk as Uint8Array;
      if (stream.sizeExceeded) {
        throw new MailError(
          "message_too_large",
          `The message is larger than ${options.messageBytesMax} bytes`,
        );
      }
    }
  }

  function traceField(session: SMTPServerSession): string {
    const word = (text: string | false) => (text || "unknown").replaceAll(/[^\w.:[\]-]/g, "?");
    const helo = word(session.hostNameAppearsAs).slice(0, 100);
    const withProtocol = `${word(session.transmissionType)} id ${word(session.id)}`;
    const date = new Date(env.wallMs()).toUTCString().replace("GMT", "+0000");
    return `Received: from ${helo} ([${word(session.remoteAddress)}])\r\n` +
      `\tby ${mail.mailDomain} (PennCloud) with ${withProtocol};\r\n\t${date}`;
  }
}

/** Reads on without keeping anything. A connection that is gone is drained. */
function drain(stream: SMTPServerDataStream): Promise<void> {
  return new Promise((resolve) => {
    if (stream.readableEnded || stream.destroyed) return resolve();
    stream.once("end", resolve).once("close", resolve).once("error", () => resolve());
    stream.resume();
  });
}
