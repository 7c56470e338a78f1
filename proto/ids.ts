/**
 * The ids and positions that every conversation shares, branded so that one cannot be passed for
 * another. A brand costs nothing at run time; `lsn(5)` is the number 5.
 */
import { z } from "zod";

/** A place in one replica group's log: the first record is 1, 0 means "none". */
export const Lsn = z.int().nonnegative().brand<"Lsn">();
export type Lsn = z.infer<typeof Lsn>;

/** Raised by the coordinator at each change of a group's configuration; higher wins. */
export const Epoch = z.int().nonnegative().brand<"Epoch">();
export type Epoch = z.infer<typeof Epoch>;

/** A replica group: one log, one epoch, one primary; it carries one or more tablets. */
export const GroupId = z.int().positive().brand<"GroupId">();
export type GroupId = z.infer<typeof GroupId>;

/** The number in a node's name: `backend/4` is node 4 among the backends. */
export const NodeId = z.int().nonnegative().brand<"NodeId">();
export type NodeId = z.infer<typeof NodeId>;

/** Written when a data folder is formatted. A replaced disk is another store. */
export const StoreId = z.string().min(1).max(64).brand<"StoreId">();
export type StoreId = z.infer<typeof StoreId>;

/**
 * What the replica of one group in a folder goes by: the folder's id until the replica is damaged, and
 * then the folder's id with the number of times that it was given up and begun anew. So a copy that was
 * given up can never be counted on again, and the other groups of the folder keep their names.
 */
export const copyId = (folder: StoreId, rebuildCount: number): StoreId =>
  rebuildCount === 0 ? folder : `${folder}~${rebuildCount}` as StoreId;

/** Whether a replica's name is one that this folder gives. */
export const isCopyOf = (folder: StoreId, store: StoreId): boolean =>
  store === folder || store.startsWith(`${folder}~`);

/** Boot counter of a store, raised and fsynced at every start: one number per process life. */
export const Incarnation = z.int().nonnegative().brand<"Incarnation">();
export type Incarnation = z.infer<typeof Incarnation>;

/**
 * The Lsn at which a cell was last written; 0 means that the cell does not exist. Compare versions
 * for equality only: they jump when a tablet moves to another group.
 */
export const Version = z.int().nonnegative().brand<"Version">();
export type Version = z.infer<typeof Version>;

export const lsn = (value: number): Lsn => value as Lsn;
export const epoch = (value: number): Epoch => value as Epoch;
export const groupId = (value: number): GroupId => value as GroupId;
export const nodeId = (value: number): NodeId => value as NodeId;
export const storeId = (value: string): StoreId => value as StoreId;
export const incarnation = (value: number): Incarnation => value as Incarnation;
export const version = (value: number): Version => value as Version;
