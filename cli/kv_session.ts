/** The store, and the accounts over it, for the length of one command. */
import { Accounts } from "../apps/accounts/accounts.ts";
import { Mail } from "../apps/mail/mail.ts";
import type { KvClient } from "../kv/client.ts";
import type { NodeEntry, Role } from "../proto/cluster_config.ts";
import { realEnv } from "../roles/env.ts";
import { connectKv } from "../roles/kv_connection.ts";
import { openLog } from "../roles/log.ts";
import type { OpenCluster } from "./cluster_flags.ts";

/** Connects to the store, hands it to `work`, and hangs up. */
export async function withKv<T>(
  cluster: OpenCluster,
  work: (kv: KvClient) => Promise<T>,
): Promise<T> {
  return await withEnvAndKv(cluster, (_env, kv) => work(kv));
}

export async function withAccounts<T>(
  cluster: OpenCluster,
  work: (accounts: Accounts) => Promise<T>,
): Promise<T> {
  const { config } = cluster;
  return await withEnvAndKv(cluster, (env, kv) => {
    const accounts = new Accounts({
      kv,
      env,
      mailDomain: config.cluster.mail_domain,
      sessionDays: config.web.session_days,
    });
    // As in the frontends: whoever gets an account gets the folders of a mailbox with it.
    accounts.onCreate(new Mail({ kv, env, config, users: accounts }).createMailbox);
    return work(accounts);
  });
}

async function withEnvAndKv<T>(
  cluster: OpenCluster,
  work: (env: ReturnType<typeof realEnv>, kv: KvClient) => Promise<T>,
): Promise<T> {
  // Retries are the client's business; a person wants to hear how it ended.
  const env = realEnv({ node: "client", log: openLog({ node: "client", threshold: "error" }) });
  const connection = connectKv({ ...cluster, env, node: clientNode(), dataDir: "", spawnId: "" });
  try {
    return await work(env, connection.kv);
  } finally {
    connection.close();
  }
}

/** How a command introduces itself to the nodes: `client/1234`. No node of that name exists. */
function clientNode(): NodeEntry {
  return { role: "client" as Role, id: Deno.pid, host: "", port: 0, zone: "" };
}
