/**
 * nginx with one folder, which it serves with `sendfile` and writes to by PUT: as fast as a file comes
 * and goes over HTTP on one machine, one copy, kept in the system's cache.
 */
import { join } from "node:path";
import { endProcess, freePorts, spawnServer, until, versionOf } from "./system.ts";

export interface RunningNginx {
  readonly about: string;
  /** `http://host:port` */
  readonly door: string;
  /** What lies here is served under its name. */
  readonly folder: string;
  pids(): number[];
  stop(): Promise<void>;
}

/** Null where it is not installed. */
export async function startNginx(dir: string): Promise<RunningNginx | null> {
  // It tells its version on its standard error.
  const version = await versionOf("sh", ["-c", "nginx -v 2>&1"], /nginx\/(\S+)/);
  if (version === null) return null;
  const [port] = freePorts(1), folder = join(dir, "files"), config = join(dir, "nginx.conf");
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(config, configText(dir, folder, port!));
  const server = spawnServer("nginx", ["-p", dir, "-c", config], join(dir, "nginx.log"));
  const door = `http://127.0.0.1:${port}`;
  try {
    await until(
      () => fetch(door).then((answer) => answer.body?.cancel().then(() => true), () => null),
      "nginx",
    );
  } catch (error) {
    await endProcess(server);
    throw error;
  }
  return {
    about: `nginx ${version}, one copy, no fsync`,
    door,
    folder,
    pids: () => [server.pid],
    stop: () => endProcess(server),
  };
}

/** One process in the foreground, which leaves nothing outside `dir`. */
function configText(dir: string, folder: string, port: number): string {
  return `daemon off;
master_process off;
pid ${dir}/nginx.pid;
error_log ${dir}/error.log;
events {}
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_max_body_size 0;
  client_body_temp_path ${dir}/body;
  server {
    listen 127.0.0.1:${port};
    location / {
      root ${folder};
      dav_methods PUT;
    }
  }
}
`;
}
