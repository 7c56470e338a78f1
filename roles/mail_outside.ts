/**
 * Hands mail to other servers: to the configured relay, or by looking up who receives mail for the
 * recipient's domain (MX). One try each; the outbox decides when to try again.
 *
 * TLS is used where the other side offers it, and not insisted on: between mail servers a
 * certificate that nobody can verify is common, and mail that is not sent helps nobody. A relay with
 * a password must show a valid certificate before it gets that.
 */
import { Readable } from "node:stream";
import mxConnect from "mx-connect";
import nodemailer from "nodemailer";
import type { OutsideResult, OutsideTransport } from "../apps/mail/outbox_worker.ts";

export interface OutsideSmtpOptions {
  /** What we call ourselves in EHLO. */
  readonly mailDomain: string;
  /** `smtp://…` or `smtps://…`; empty for delivery by MX. */
  readonly relay: string;
  /** Tests bring their own names and ports. */
  readonly mx?: {
    readonly port: number;
    readonly resolveRecords: (domain: string, type: string) => Promise<unknown[]>;
  };
}

const CONNECT_MS = 30_000;
const GREETING_MS = 60_000;
/** A busy server may think for minutes before it takes a message (RFC 5321, 4.5.3.2). */
const SOCKET_MS = 180_000;
const DETAIL_LENGTH_MAX = 300;

interface SmtpError extends Error {
  readonly code?: string;
  readonly responseCode?: number;
  readonly response?: string;
  readonly recipient?: string;
  readonly rejectedErrors?: readonly SmtpError[];
  readonly temporary?: boolean;
}

export class OutsideSmtp implements OutsideTransport {
  readonly #options: OutsideSmtpOptions;

  constructor(options: OutsideSmtpOptions) {
    this.#options = options;
  }

  async send(message: Parameters<OutsideTransport["send"]>[0]): Promise<
    ReadonlyMap<string, OutsideResult>
  > {
    const { recipients, from, signal } = message;
    const domain = recipients[0]!.slice(recipients[0]!.lastIndexOf("@") + 1);
    let transport: ReturnType<typeof nodemailer.createTransport> | null = null;
    let host = domain;
    const abort = () => transport?.close();
    try {
      const connected = await this.#connect(domain);
      ({ transport, host } = connected);
      signal.addEventListener("abort", abort, { once: true });
      if (signal.aborted) throw new Error("we are shutting down");
      const info = await transport.sendMail({
        envelope: { from, to: [...recipients] },
        raw: Readable.from(message.source(), { objectMode: false }),
      }) as unknown as { rejectedErrors?: readonly SmtpError[] };
      return this.#results(recipients, host, info.rejectedErrors ?? [], null);
    } catch (cause) {
      const error = cause as SmtpError;
      return this.#results(recipients, host, error.rejectedErrors ?? [], error);
    } finally {
      signal.removeEventListener("abort", abort);
      transport?.close();
    }
  }

  async #connect(domain: string) {
    const { mailDomain, relay, mx } = this.#options;
    const common = {
      name: mailDomain,
      connectionTimeout: CONNECT_MS,
      greetingTimeout: GREETING_MS,
      socketTimeout: SOCKET_MS,
      disableFileAccess: true,
      disableUrlAccess: true,
    };
    if (relay !== "") {
      const url = new URL(relay), secure = url.protocol === "smtps:";
      const user = decodeURIComponent(url.username), pass = decodeURIComponent(url.password);
      const transport = nodemailer.createTransport({
        ...common,
        host: url.hostname,
        port: Number(url.port || (secure ? 465 : 25)),
        secure,
        tls: { rejectUnauthorized: user !== "" },
        ...(user === "" ? {} : { auth: { user, pass } }),
      });
      return { transport, host: url.hostname };
    }
    const connection = await mxConnect({
      target: domain,
      port: mx?.port ?? 25,
      maxConnectTime: CONNECT_MS,
      localHostname: mailDomain,
      dnsOptions: {
        // A stranger's MX record must not make us talk to machines behind our own walls.
        blockLocalAddresses: mx === undefined,
        ...(mx === undefined ? {} : { resolveRecords: mx.resolveRecords }),
      },
    });
    const { socket, hostname } = connection as { socket: never; hostname: string };
    const transport = nodemailer.createTransport({
      ...common,
      connection: socket,
      host: hostname,
      tls: { rejectUnauthorized: false, servername: hostname },
    });
    return { transport, host: hostname };
  }

  #results(
    recipients: readonly string[],
    host: string,
    rejected: readonly SmtpError[],
    failure: SmtpError | null,
  ): Map<string, OutsideResult> {
    return new Map(recipients.map((address): [string, OutsideResult] => {
      const own = rejected.find((error) => error.recipient === address);
      const error = own ?? failure;
      return [address, error === null ? { kind: "delivered" } : judge(error, host)];
    }));
  }
}

function judge(error: SmtpError, host: string): OutsideResult {
  const code = error.responseCode ?? Number(/^\s*([245]\d\d)\b/.exec(error.response ?? "")?.[1]);
  const domainMissing = error.code === "ENOTFOUND" || error.code === "ENODATA";
  const words = code >= 400
    ? `the server ${host} answered: ${error.response ?? error.message}`
    : domainMissing
    ? `no mail server could be found for ${host}`
    : `the server ${host} could not be reached (${error.message})`;
  const detail = words.replaceAll(/[\p{Cc}\s]+/gu, " ").trim().replace(/\.$/, "")
    .slice(0, DETAIL_LENGTH_MAX);
  // A password that the relay refuses is ours to mend, not the recipient's fault.
  const ours = error.code === "EAUTH";
  const final = !ours && (code >= 500 || (Number.isNaN(code) && domainMissing));
  return { kind: final ? "refused" : "deferred", detail };
}
