/** `penncloud user …`: accounts from the command line, by the rules of apps/accounts. */
import { AccountError } from "../apps/accounts/account_error.ts";
import type { Accounts } from "../apps/accounts/accounts.ts";
import { table } from "../roles/table.ts";
import { type ClusterFlags, openCluster } from "./cluster_flags.ts";
import { DONE, NOT_FOUND, UnavailableError, WRONG_USE } from "./exit_status.ts";
import { withAccounts } from "./kv_session.ts";
import { writeJson, writeLine } from "./output.ts";
import { readPassword } from "./password_prompt.ts";

export interface PasswordFlags extends ClusterFlags {
  /** The password is the first line of standard input. */
  readonly passwordStdin?: boolean | undefined;
}

export async function userAdd(
  username: string,
  flags: PasswordFlags & { readonly admin?: boolean | undefined },
): Promise<number> {
  return await withUsers(flags, async (accounts) => {
    const password = await readPassword({ fromStdin: flags.passwordStdin ?? false });
    const account = await accounts.create({
      username,
      password,
      admin: flags.admin ?? false,
      operator: true,
    });
    if (flags.json) writeJson(account);
    else writeLine(`Made the account ${account.username} (${account.address})`);
  });
}

export async function userPasswd(username: string, flags: PasswordFlags): Promise<number> {
  return await withUsers(flags, async (accounts) => {
    const password = await readPassword({ fromStdin: flags.passwordStdin ?? false });
    await accounts.setPassword(username, password);
    if (flags.json) writeJson({ username, changed: true });
    else writeLine(`The password of ${username} is changed, and all its sessions have ended`);
  });
}

export async function userAdmin(
  username: string,
  flags: ClusterFlags & { readonly revoke?: boolean | undefined },
): Promise<number> {
  return await withUsers(flags, async (accounts) => {
    const account = await accounts.setAdmin(username, !flags.revoke);
    if (flags.json) writeJson(account);
    else writeLine(`${username} is ${account.admin ? "now" : "no longer"} an administrator`);
  });
}

export async function userList(flags: ClusterFlags): Promise<number> {
  return await withUsers(flags, async (accounts) => {
    const users: { username: string; address: string; admin: boolean; createdMs: number }[] = [];
    let after: string | null = null;
    do {
      const page: Awaited<ReturnType<Accounts["list"]>> = await accounts.list({
        limit: 100,
        ...(after === null ? {} : { after }),
      });
      for (const { username } of page.users) {
        const account = await accounts.find(username);
        if (account !== null) users.push(account);
      }
      after = page.next;
    } while (after !== null);
    if (flags.json) return writeJson(users);
    const rows = users.map((user) => [
      user.username,
      user.address,
      user.admin ? "admin" : "",
      new Date(user.createdMs).toISOString().slice(0, 10),
    ]);
    writeLine(table(["NAME", "ADDRESS", "ROLE", "SINCE"], rows));
  });
}

async function withUsers(
  flags: ClusterFlags,
  work: (accounts: Accounts) => Promise<void>,
): Promise<number> {
  try {
    await withAccounts(await openCluster(flags), work);
    return DONE;
  } catch (error) {
    if (!(error instanceof AccountError)) throw error;
    if (error.code === "busy") throw new UnavailableError(error.message, { cause: error });
    const refused = error.code === "name_taken" || error.code === "no_such_user";
    console.error(error.message);
    return refused ? NOT_FOUND : WRONG_USE;
  }
}
