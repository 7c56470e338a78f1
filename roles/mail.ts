/**
 * The mail node: SMTP in on three ports (mail_smtp.ts), mail out to other servers (mail_outside.ts),
 * and a worker of the outbox that carries both. It keeps nothing: several may run, and when one dies
 * the others and the frontends go on with its deliveries.
 *
 * Its HTTP answers (`/livez`, `/readyz`, `/metrics`) are on its port + 1000.
 */
import { join } from "node:path";
import { Accounts } from "../apps/accounts/accounts.ts";
import { Mail } from "../apps/mail/mail.ts";
import { repeat } from "../kv/repeat.ts";
import { TLS_CERT_FILE, TLS_KEY_FILE } from "./cluster_folder.ts";
import { connectKv } from "./kv_connection.ts";
import { OutsideSmtp } from "./mail_outside.ts";
import { openSmtpDoors, type SmtpDoors } from "./mail_smtp.ts";
import { MemoryReturn } from "./memory_return.ts";
import { Metrics } from "./metrics.ts";
import { NodeReporter } from "./node_reporter.ts";
import { opsPort, startOpsServer } from "./ops_server.ts";
import type { RoleContext, RunningRole } from "./role_context.ts";

const STOP_GRACE_MS = 4_000;
const PROBE_EVERY_MS = 1_000;
const PROBE_DEADLINE_MS = 900;

export async function runMail(context: RoleContext): Promise<RunningRole> {
  const { config, env, node, clusterDir } = context;
  const connection = connectKv(context), { kv } = connection;
  const mailDomain = config.cluster.mail_domain;
  const accounts = new Accounts({ kv, env, mailDomain, sessionDays: config.web.session_days });
  const outside = new OutsideSmtp({ mailDomain, relay: config.mail.relay });
  const mail = new Mail({ kv, env, config, users: accounts, outside });
  accounts.onCreate(mail.createMailbox);

  const metrics = new Metrics();
  const messages = metrics.counter("penncloud_smtp_messages_total", "Messages by door and outcome");
  const memory = new MemoryReturn(env);
  let taken = 0;
  const tls = {
    cert: await Deno.readTextFile(config.mail.tls_cert || join(clusterDir, TLS_CERT_FILE)),
    key: await Deno.readTextFile(config.mail.tls_key || join(clusterDir, TLS_KEY_FILE)),
  };
  const { smtp_port, submission_port, submissions_port } = config.mail;
  const doors: SmtpDoors = await openSmtpDoors({
    mail,
    accounts,
    env,
    host: node.host,
    ports: { smtp: smtp_port, submission: submission_port, submissions: submissions_port },
    tls,
    messageBytesMax: config.mail.message_max_bytes,
    recipientsMax: config.mail.recipients_max,
    onMessage: ({ door, outcome, bytes }) => {
      taken++;
      messages.add(1, { door, outcome });
      memory.passed(bytes);
    },
  });
  metrics.read("penncloud_smtp_connections", {
    help: "Open SMTP connections",
    value: () => doors.connections(),
  });

  const ready = Promise.withResolvers<void>();
  let storeAnswers = false, stopping = false;
  const readiness = () => {
    if (stopping) return { ready: false, reason: "stopping" };
    return storeAnswers ? { ready: true } : { ready: false, reason: "the store does not answer" };
  };
  const probe = async () => {
    try {
      await kv.get("=users", "admin", { deadlineMs: PROBE_DEADLINE_MS });
      storeAnswers = true;
      ready.resolve();
    } catch {
      storeAnswers = false;
    }
  };
  const ops = startOpsServer({
    hostname: node.host,
    port: opsPort(node.port),
    ready: readiness,
    metrics: () => metrics.text(),
  });
  const reporter = new NodeReporter({
    context,
    coordinator: connection.peers.coordinator,
    ready: () => readiness().ready,
    requestCount: () => taken,
    connections: () => doors.connections(),
  });
  reporter.start();
  mail.worker.start();
  void probe();
  const endProbes = repeat(env, PROBE_EVERY_MS, () => void probe());

  return {
    ready: ready.promise,
    async stop() {
      stopping = true;
      endProbes();
      memory.close();
      reporter.stop();
      const finished = Promise.all([doors.close(), mail.worker.stop(), ops.close()]);
      await Promise.race([finished, env.sleep(STOP_GRACE_MS)]);
      metrics.close();
      connection.close();
    },
  };
}
