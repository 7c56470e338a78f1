/**
 * How a command ends, for scripts:
 *
 *     0  done
 *     1  not found, or the compare failed
 *     2  wrong use: a flag, the configuration, the data folder
 *     3  the store, or the node that was asked, is not available
 */
import { KvError } from "../kv/errors.ts";
import { ClusterFolderError } from "../roles/cluster_folder.ts";
import { ConfigError } from "../roles/config_file.ts";

export const DONE = 0;
export const NOT_FOUND = 1;
export const WRONG_USE = 2;
export const UNAVAILABLE = 3;

/** The person typed something that cannot be done. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Something that a command needs does not answer. */
export class UnavailableError extends Error {
  override readonly name = "UnavailableError";
}

/** The exit status and the one line on stderr for whatever a command threw; null for our own bugs. */
export function exitFor(error: unknown): { status: number; message: string } | null {
  if (error instanceof ConfigError) return { status: WRONG_USE, message: error.message };
  if (error instanceof ClusterFolderError || error instanceof UsageError) {
    return { status: WRONG_USE, message: error.message };
  }
  if (error instanceof UnavailableError) return { status: UNAVAILABLE, message: error.message };
  if (error instanceof KvError) {
    const status = error.code === "invalid_request" || error.code === "row_too_large"
      ? WRONG_USE
      : UNAVAILABLE;
    const advice = error.outcome === "unknown"
      ? "; the write may have happened: read, then decide"
      : error.code === "unavailable"
      ? "; is the cluster running? `penncloud admin status` says what is wrong"
      : "";
    return { status, message: `${error.message}${advice}` };
  }
  return null;
}
