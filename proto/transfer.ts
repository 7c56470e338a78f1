/** learner → primary: fetching a checkpoint, in chunks that can be asked for again. */
import { z } from "zod";
import { GroupId, Lsn } from "./ids.ts";
import { method } from "./rpc.ts";

export const transferConversation = {
  /** Makes a consistent copy and keeps it for a while; the token names it. */
  open: method(
    z.object({ gid: GroupId }),
    z.object({ token: z.string(), lsn: Lsn, bytes: z.int().nonnegative() }),
  ),
  /** Bytes from `offset` on; the payload is shorter than `length` only at the end. */
  read: method(
    z.object({ token: z.string(), offset: z.int().nonnegative(), length: z.int().max(262_144) }),
    z.object({ crc: z.int() }),
  ),
  close: method(z.object({ token: z.string() }), z.object({})),
  /** A large value by name. */
  blob: method(
    z.object({ gid: GroupId, blob: z.string().max(128) }),
    z.object({ found: z.boolean(), damaged: z.boolean().optional() }),
  ),
};
