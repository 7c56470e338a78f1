/** What a backend says of its disk: a part of its reports, and of what the operator sees. */
import { z } from "zod";

/** How the disk fares: what reading everything again found, in the round under way or the last one. */
export const ScrubReport = z.object({
  state: z.enum(["idle", "cells", "values", "log"]),
  /** Rounds since the process began. */
  rounds: z.int(),
  /** When the last round ended, in milliseconds since 1970, also of earlier processes. */
  finishedMs: z.number().nullable(),
  cells: z.int(),
  values: z.int(),
  bytes: z.number(),
  damaged: z.int(),
  /** Of those, how many were put right on the spot; a replica that begins anew is not counted. */
  mended: z.int(),
  /** The last damage, in one sentence. */
  finding: z.string().nullable(),
});
export type ScrubReport = z.infer<typeof ScrubReport>;

/** What became of damage on this disk. */
export const DiskReport = z.object({
  scrub: ScrubReport,
  /** Replicas begun anew, and values fetched anew, since the process began. */
  rebuilt: z.int(),
  mended: z.int(),
  quarantine: z.object({ count: z.int(), bytes: z.number() }),
});
export type DiskReport = z.infer<typeof DiskReport>;
