/**
 * The `admin` account of a new cluster: made once, with a password that is shown once.
 *
 * It is made by `penncloud user add` in a process of its own, so that hashing and the store's client
 * do not stay in the supervisor's memory for the rest of its life.
 */
import { selfCommand } from "./self_command.ts";
import type { UpOptions } from "./supervisor.ts";

const ADMIN_NAME = "admin";
/** No letters that look alike; 20 of 32 symbols are 100 bits. */
const PASSWORD_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789-";
const PASSWORD_LENGTH = 20;

export interface AdminMade {
  /** The account exists, made now or earlier. */
  readonly done: boolean;
  readonly sentence: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export async function makeAdminAccount({ loaded, portOffset }: UpOptions): Promise<AdminMade> {
  const password = oneTimePassword();
  const { program, args, env } = selfCommand("frontend", [
    "user",
    "add",
    ADMIN_NAME,
    "--admin",
    "--password-stdin",
    `--config=${loaded.source}`,
    `--data=${loaded.clusterDir}`,
    `--port-offset=${portOffset}`,
  ]);
  const child = new Deno.Command(program, {
    args: [...args],
    env: { ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  await input.write(new TextEncoder().encode(`${password}\n`)).catch(() => {});
  await input.close().catch(() => {});
  const { code, stderr } = await child.output();
  if (code === 0) {
    return {
      done: true,
      sentence: `The administrator's account, shown this once:\n` +
        `    name      ${ADMIN_NAME}\n    password  ${password}\n`,
      fields: { username: ADMIN_NAME, password },
    };
  }
  if (code === 1) {
    return {
      done: true,
      sentence: `The account "${ADMIN_NAME}" was there already; set its password with ` +
        `\`penncloud user passwd ${ADMIN_NAME}\``,
      fields: { username: ADMIN_NAME, existed: true },
    };
  }
  const reason = new TextDecoder().decode(stderr).trim();
  return {
    done: false,
    sentence: `The account "${ADMIN_NAME}" could not be made, and will be at the next start: ` +
      reason,
    fields: { username: ADMIN_NAME, problem: reason },
  };
}

function oneTimePassword(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(PASSWORD_LENGTH));
  return Array.from(bytes, (byte) => PASSWORD_LETTERS[byte % PASSWORD_LETTERS.length]).join("");
}
